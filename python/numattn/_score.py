"""What a score goes through on its way to a weight: the arguments that say so, once for all.

Each function that attends takes some of them, and says which by the kind of its ``**score``:

    HeadScore        of heads, positions and structure: what every function takes
    CachedScore      and terms by distance: attention over a cache
    PackedScore      HeadScore, and where the queries stand: sequences in one array
    PagedScore       all of these, and arrays over (query, key): tokens in pages
    ScoreOptions     and lengths: everything

An argument is added here alone: a key and its paragraph below, a field of `Score` and a line of
`Score.of`; and in NUMATTN_SCORE_FIELDS of cpp/include/numattn/score.h, whose order is that of the
fields.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from textwrap import indent
from typing import Any, NamedTuple, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import (
    INT64,
    bounded_integer,
    flag,
    float_array,
    integer_array,
    integers,
    optional_array,
    optional_real,
    real,
    size,
)
from numattn._names import Array, Float32Array, Int64Array
from numattn.block_mask import BlockMask
from numattn.position.relative import Relative

Window: TypeAlias = Sequence[int | None] | None
Scale: TypeAlias = float | ArrayLike | None
BlockMasks: TypeAlias = BlockMask | Sequence[BlockMask | None] | None
KeySpans: TypeAlias = tuple[ArrayLike, ArrayLike] | Array | None


class HeadScore(TypedDict, total=False):
    """
    window : (left, right), optional
        Key j is visible iff ``pos - left <= j <= pos + right``, ``pos = q_offset + i``; −1 or None
        leaves a side unbounded.
    key_spans : (begin, end) of int arrays, optional
        Row i sees keys ``begin <= j < end`` alone, of those that the other arguments leave; each
        broadcasts to (B, Hq, Sq) and is in 0 … Sk; begin ≥ end is an empty row.
        :mod:`numattn.spans` makes them.
    sink_tokens : int
        The first keys, so many of them, stay visible whatever the window (attention sinks).
    block_mask : numattn.BlockMask, optional
        Which blocks of 64 keys each block of 64 queries sees, as a whole or by bits; made by
        :mod:`numattn.patterns` and by the class itself. Its Sq and Sk are those of q and k. Blocks
        that are not listed cost nothing and are never read. In :func:`numattn.attention_varlen`
        also a sequence of N masks, one for each sequence of tokens, None for all of its keys.
    scale : float, optional
        Default ``1 / sqrt(D)``, or that of ``relative`` if it has one. 0, or of a magnitude from
        1.2e-38 to 2.3e38. In :func:`numattn.attention` and ``attention_weights`` also an array of
        shape (Hq,) or (B, Hq), by which a copy of q is multiplied: 16-bit queries are rounded once
        more by that (2^-9 of each element of bfloat16, 2^-12 of float16).
    softcap : float, optional
        Scores become ``softcap · tanh(s / softcap)``; one beyond 2.3e38 counts as 2.3e38.
    alibi_slopes : array of shape (Hq,) or (B, Hq), optional
        Adds ``-slope · |pos - j|``.
    sinks : array of shape (Hq,), optional
        One extra logit per head that takes probability and gives no value; a finite one beyond
        ±2.3e38 counts as ±2.3e38.
    skip_below : float
        Approximate where it is not 0, the default; less than 1. A tile of keys is left out, with
        its values, where each of its weights, relative to the largest that its row has had before,
        is below that, for all the rows whose scores are computed together (docs/approximations.md).
        What of n keys is left out takes less than ``n · skip_below`` of what is kept. The lse is
        then of what is kept; a NaN among the values that are left out goes unseen.
    """

    window: Window
    key_spans: KeySpans
    sink_tokens: int
    block_mask: BlockMasks
    scale: Scale
    softcap: float | None
    alibi_slopes: ArrayLike | None
    sinks: ArrayLike | None
    skip_below: float


class CachedScore(HeadScore, total=False):
    """
    relative : numattn.position.Relative, optional
        Terms of scores and values by the distance of a query from a key, through learned tables:
        :func:`numattn.position.shaw`, ``transformer_xl``, ``disentangled``. They belong to the
        scaled scores, before softcap. Computed in float32 for every dtype and number of queries.
    """

    relative: Relative | None


class PackedScore(HeadScore, total=False):
    """
    is_causal : bool
        Key j is visible to query i iff ``j <= q_offset + i``.
    q_offset : int or int array of shape (B,)
        Position of the first query among the keys. 0 aligns the causal diagonal top-left
        (PyTorch, JAX, ONNX); ``Sk - Sq`` bottom-right (a decoder with a cache).
    """

    is_causal: bool
    q_offset: ArrayLike


class PagedScore(CachedScore, PackedScore, total=False):
    """
    mask : bool array, optional
        True = may attend. Broadcasts to (B, Hq, Sq, Sk), never expanded in memory: two axes are
        (Sq, Sk), and a padding of shape (B, Sk) is given as ``[:, None, None]`` of it. A key hidden
        here has weight exactly 0 whatever its score; but its value row may still be multiplied by
        0, so a NaN or infinity there may show. Hide padding with ``kv_lens`` to have it never read.
    bias : float32 array (or q's dtype), optional
        Added to the scores; broadcasts likewise. −inf excludes a key.
    """

    mask: ArrayLike | None
    bias: ArrayLike | None


class ScoreOptions(PagedScore, total=False):
    """
    kv_lens : int array of shape (B,), optional
        Only keys ``j < kv_lens[b]`` exist.
    """

    kv_lens: ArrayLike | None


class Score(NamedTuple):
    """The arguments as the core takes them, which reads them in this order."""

    mask: Array | None
    bias: Array | None
    is_causal: bool
    q_offset: Int64Array | None
    window: tuple[int, int]
    key_spans: Int64Array | None
    sink_tokens: int
    block_mask: BlockMask | None
    scale: float | None
    softcap: float | None
    kv_lens: Int64Array | None
    alibi_slopes: Float32Array | None
    sinks: Float32Array | None
    relative: Relative | None
    skip_below: float

    @classmethod
    def of(
        cls,
        *,
        mask: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        is_causal: bool = False,
        q_offset: ArrayLike = 0,
        window: Window = None,
        key_spans: KeySpans = None,
        sink_tokens: int = 0,
        block_mask: BlockMasks = None,
        scale: Scale = None,
        softcap: float | None = None,
        kv_lens: ArrayLike | None = None,
        alibi_slopes: ArrayLike | None = None,
        sinks: ArrayLike | None = None,
        relative: Relative | None = None,
        skip_below: float = 0.0,
    ) -> Score:
        """Coerce what a caller gave; shapes and most ranges are checked by the core."""
        if relative is not None:
            if not isinstance(relative, Relative):
                raise TypeError(
                    "relative must be a numattn.position.Relative, as shaw, transformer_xl and "
                    f"disentangled make it, not {type(relative).__name__}"
                )
            scale = relative.scale if scale is None else scale
        if block_mask is not None and not isinstance(block_mask, BlockMask):
            raise TypeError(
                "block_mask must be a numattn.BlockMask, as numattn.patterns makes them, not "
                f"{type(block_mask).__name__}: give a dense mask as mask"
            )
        return cls(
            optional_array("mask", mask),
            optional_array("bias", bias),
            flag("is_causal", is_causal),
            _offsets(q_offset),
            (-1, -1) if window is None else window_sides(window),
            None if key_spans is None else _row_spans(key_spans),
            size("sink_tokens", sink_tokens, least=0),
            block_mask,
            optional_real("scale", scale),  # type: ignore[arg-type]  # of an array, it says so
            optional_real("softcap", softcap),
            None if kv_lens is None else integer_array("kv_lens", kv_lens, scalar=False),
            None if alibi_slopes is None else float_array("alibi_slopes", alibi_slopes, 2),
            None if sinks is None else float_array("sinks", sinks, 1, limit=True),
            relative,
            real("skip_below", skip_below),
        )


def window_sides(window: Window) -> tuple[int, int]:
    """(left, right) with −1 for an unbounded side."""
    if window is None:
        return (-1, -1)
    try:
        left, right = window
    except (TypeError, ValueError):
        raise ValueError(f"window must be a pair (left, right) or None, not {window!r}") from None
    return (
        -1 if left is None else bounded_integer("window", left),
        -1 if right is None else bounded_integer("window", right),
    )


def _row_spans(key_spans: KeySpans) -> Int64Array:
    """Begins and ends as one array (2, B or 1, Hq or 1, Sq or 1) of the call's own."""
    if type(key_spans) is np.ndarray and key_spans.dtype is INT64 and key_spans.ndim == 4:
        if len(key_spans) == 2:  # told quickly: as it is to be
            whole: Int64Array = key_spans.copy()
            return whole
    try:
        given = tuple(key_spans)  # type: ignore[arg-type]
    except TypeError:
        given = ()
    if isinstance(key_spans, (str, bytes, Mapping, Set)) or len(given) != 2:
        raise ValueError(f"key_spans must be a pair (begin, end) of arrays, not {key_spans!r}")
    ends = [integers("key_spans", end) for end in given]
    try:
        spans = np.stack(np.broadcast_arrays(*ends))
    except ValueError:
        raise ValueError(
            f"key_spans: begin of shape {ends[0].shape} and end of shape {ends[1].shape} do not fit"
        ) from None
    if spans.ndim > 4:
        raise ValueError(f"key_spans must broadcast to (B, Hq, Sq), not be {spans.shape[1:]}")
    return spans.reshape(2, *(1,) * (4 - spans.ndim), *spans.shape[1:])


def _offsets(q_offset: ArrayLike) -> Int64Array | None:
    if isinstance(q_offset, int):
        if q_offset == 0:
            return None
        bounded_integer("q_offset", q_offset)
    return integer_array("q_offset", q_offset, scalar=True).reshape(-1)


# --- signatures and docstrings --------------------------------------------------------------------

Function = TypeVar("Function", bound=Callable[..., Any])


def require_known(function: str, given: Iterable[str], options: Any) -> None:
    """Refuse keywords that are not among the options, in the words in which Python does."""
    known = options.__optional_keys__
    if known.issuperset(given):
        return
    name = next(name for name in given if name not in known)
    similar = difflib.get_close_matches(name, known, n=1)
    hint = f". Did you mean '{similar[0]}'?" if similar else ""
    raise TypeError(f"{function}() got an unexpected keyword argument '{name}'{hint}")


def spelled_out(options: Any) -> Callable[[Function], Function]:
    """Show the keywords that stand behind a function's ``**score`` to help() and inspect.

    ``{score}`` in its docstring becomes what those keywords mean.
    """

    def spell_out(function: Function) -> Function:
        own = inspect.signature(function)
        score = [
            parameter
            for parameter in inspect.signature(Score.of).parameters.values()
            if parameter.name in options.__optional_keys__
        ]
        before = [p for p in own.parameters.values() if p.kind < inspect.Parameter.KEYWORD_ONLY]
        after = [p for p in own.parameters.values() if p.kind == inspect.Parameter.KEYWORD_ONLY]
        signature = own.replace(parameters=[*before, *score, *after])
        function.__signature__ = signature  # type: ignore[attr-defined]
        place = re.search(r"^( *)\{score\}\n", function.__doc__ or "", re.MULTILINE)
        if place and function.__doc__:
            meanings = _meanings()
            block = "".join(meanings[parameter.name] for parameter in score)
            function.__doc__ = function.__doc__.replace(place[0], indent(block, place[1]))
        return function

    return spell_out


def _meanings() -> dict[str, str]:
    """The paragraphs of the docstrings above by the argument that each is about."""
    kinds = (HeadScore, CachedScore, PackedScore, PagedScore, ScoreOptions)
    text = "".join(inspect.cleandoc(kind.__doc__ or "") + "\n" for kind in kinds)
    paragraphs = re.finditer(r"^(\w+) : .*\n(?: .*\n)+", text, re.MULTILINE)
    return {paragraph[1]: paragraph[0] for paragraph in paragraphs}
