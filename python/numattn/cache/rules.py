"""The score of a decoder's step: causal, and in most calls the same as in the last."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numattn._score import CachedScore, Score, Window, window_sides

_PLAIN = frozenset(("window", "sink_tokens", "scale", "softcap"))
_HASHED = frozenset((float, type(None)))


def step_rules(score: CachedScore, window: tuple[int, int], sink_tokens: int) -> Score:
    """Return the score of queries that see all keys up to their own, wherever they stand."""
    scale, softcap = score.get("scale"), score.get("softcap")
    if _PLAIN.issuperset(score) and type(scale) in _HASHED and type(softcap) in _HASHED:
        return plain_rules(window, sink_tokens, scale, softcap)  # type: ignore[arg-type]
    options: dict[str, Any] = {**score, "window": window, "sink_tokens": sink_tokens}
    return Score.of(is_causal=True, **options)


@lru_cache(maxsize=1024)
def plain_rules(
    window: tuple[int, int], sink_tokens: int, scale: float | None, softcap: float | None
) -> Score:
    """Return the score of a causal call with nothing else: the same in each step of a decoder."""
    return Score.of(
        is_causal=True, window=window, sink_tokens=sink_tokens, scale=scale, softcap=softcap
    )


def left_of(window: Window) -> int | None:
    """Return how many keys before its own position a query sees; None for all."""
    left = window_sides(window)[0]
    return None if left < 0 else left
