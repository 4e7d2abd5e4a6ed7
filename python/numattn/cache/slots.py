"""Structure that names keys by position, as a layer is told it that has dropped some of them."""

from __future__ import annotations

import numpy as np

from numattn import _core
from numattn._names import Array, Int64Array, Layout
from numattn._score import Score
from numattn.block_mask.parts import at_positions

from .token_kind import TokenKind


def names_keys(rules: Score) -> bool:
    """Return whether a score's structure names keys one by one."""
    return rules.key_spans is not None or rules.block_mask is not None


def require_fit(rules: Score, q: Array, kind: TokenKind, keys: int, layout: Layout) -> None:
    """Refuse, as attention does, what does not fit queries and so many keys at once."""
    k, v = (
        list(kind.shape(len(q), keys, width, layout)) for width in (kind.head_dim, kind.value_dim)
    )
    _core.plan(list(q.shape), k, v, q, rules, layout, "highest", 0)


def in_slots(rules: Score, ends: Int64Array, first: Int64Array, sinks: int) -> Score:
    """Return the same of slots, of which slot s of a row has position s, or s + first from the
    `sinks` on.

    Parameters
    ----------
    rules : Score
    ends : int array (B,)
        How many tokens each row has, those that were dropped included.
    first : int array (B,)
        How many of them were.
    sinks : int
        The first tokens, which were not.
    """
    spans, mask = rules.key_spans, rules.block_mask
    if spans is not None:
        moved = np.maximum(spans - first[:, np.newaxis, np.newaxis], sinks)
        most = (ends - first)[:, np.newaxis, np.newaxis]
        spans = np.minimum(np.where(spans <= sinks, spans, moved), most)
    if mask is not None:
        slot = np.arange((ends - first).max())
        position = np.where(slot < sinks, slot, slot + first[:, np.newaxis])
        # Beyond a row's own end there is none.
        mask = at_positions(mask, np.minimum(position, mask.shape[3] - 1))
    return rules._replace(key_spans=spans, block_mask=mask)
