"""Makers of ``key_spans``: for each query row, the interval of keys that it may see.

Each returns a pair (begin, end) of int64 arrays for ``attention(…, key_spans=…)``, which visits the
keys of neighbouring rows' intervals and no others. Intervals are intersected with ``is_causal``,
``window`` and lengths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import integers, size
from numattn._names import Int64Array

__all__ = ["chunks", "documents", "image_blocks", "prefix_lm"]

Spans = tuple[Int64Array, Int64Array]


def prefix_lm(prefix_lengths: ArrayLike, length: int) -> Spans:
    """Every token sees its sequence's whole prefix, and later tokens all before them.

    Parameters
    ----------
    prefix_lengths : int or int array of shape (B,)
        Tokens of each prefix, 0 … length.
    length : int
        Tokens of each sequence, S.

    Returns
    -------
    begin, end : int64 arrays of shapes () and (B, 1, S)
        end[b, 0, i] = max(prefix_lengths[b], i + 1); (S,) for one prefix length.

    Raises
    ------
    TypeError
        If a length is no integer.
    ValueError
        If a prefix is longer than the sequence, or a length is negative.

    Notes
    -----
    The mask of UniLM and T5's prefix language model (Dong et al., 2019; Raffel et al., 2020).

    Examples
    --------
    >>> import numattn as na
    >>> na.spans.prefix_lm([2, 0], 4)[1][:, 0]
    array([[2, 2, 3, 4],
           [1, 2, 3, 4]])
    """
    length = size("length", length, least=0)
    prefix = integers("prefix_lengths", prefix_lengths)
    if prefix.ndim > 1:
        raise ValueError(f"prefix_lengths must be one number or (B,), not {prefix.shape}")
    if np.any((prefix < 0) | (prefix > length)):
        raise ValueError(f"prefix_lengths must be in 0 … {length}, not {prefix.tolist()}")
    if prefix.ndim == 1:
        prefix = prefix[:, np.newaxis, np.newaxis]
    return np.zeros((), np.int64), np.maximum(prefix, np.arange(1, length + 1))


def documents(cu_seqlens: ArrayLike) -> Spans:
    """Every token sees its own document, of several that lie one after the other in a sequence.

    Parameters
    ----------
    cu_seqlens : int array of shape (N + 1,)
        Where documents begin, as for :func:`numattn.attention_varlen`: prefix sums of their
        lengths from 0 on.

    Returns
    -------
    begin, end : int64 arrays of shape (cu_seqlens[-1],)
        Of each token's document.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If they do not start at 0, or fall.

    Examples
    --------
    >>> import numattn as na
    >>> na.spans.documents([0, 2, 5])
    (array([0, 0, 2, 2, 2]), array([2, 2, 5, 5, 5]))
    """
    starts = integers("cu_seqlens", cu_seqlens)
    if starts.ndim != 1 or starts.size == 0 or starts[0] != 0 or np.any(np.diff(starts) < 0):
        raise ValueError(f"cu_seqlens must start at 0 and never fall, not {starts.tolist()}")
    lengths = np.diff(starts)
    return np.repeat(starts[:-1], lengths), np.repeat(starts[1:], lengths)


def chunks(chunk: int, length: int, *, q_offset: int = 0) -> Spans:
    """Every token sees the chunk that its position lies in: positions n·chunk … (n + 1)·chunk − 1.

    Parameters
    ----------
    chunk : int
        Tokens of a chunk.
    length : int
        Query rows, Sq; there are q_offset + length keys.
    q_offset : int
        Position of the first row among the keys.

    Returns
    -------
    begin, end : int64 arrays of shape (length,)
        Give them with ``is_causal=True`` for a decoder.

    Raises
    ------
    TypeError
        If an argument is no integer.
    ValueError
        If one is negative, or chunk is 0.

    Notes
    -----
    Chunked attention as in Llama 4's layers with rotary positions.

    Examples
    --------
    >>> import numattn as na
    >>> na.spans.chunks(2, 5)
    (array([0, 0, 2, 2, 4]), array([2, 2, 4, 4, 5]))
    """
    chunk = size("chunk", chunk)
    length = size("length", length, least=0)
    offset = size("q_offset", q_offset, least=0)
    begin = np.arange(offset, offset + length) // chunk * chunk
    return begin, np.minimum(begin + chunk, offset + length)


def image_blocks(blocks: ArrayLike, *, sliding_window: int | None = None) -> Spans:
    """Causal among tokens of text, and all of an image's tokens see one another.

    Parameters
    ----------
    blocks : int array of shape (S,) or (B, S)
        The number of each token's image, alike for the tokens of one, which lie side by side; −1
        for text.
    sliding_window : int, optional
        Tokens of text, and images' tokens beyond their own image, see at most so many keys up to
        their own position.

    Returns
    -------
    begin, end : int64 arrays of shape (S,) or (B, 1, S)
        end = max(i + 1, end of the image of token i).

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If an image's number comes back after another token, or sliding_window is not positive.

    Notes
    -----
    The mask of Gemma 3 and PaliGemma-like decoders.

    Examples
    --------
    >>> import numattn as na
    >>> na.spans.image_blocks([-1, 0, 0, -1])[1]
    array([1, 3, 3, 4])
    """
    images = integers("blocks", blocks)
    if images.ndim not in (1, 2):
        raise ValueError(f"blocks must be (S,) or (B, S), not {images.shape}")
    rows = np.atleast_2d(images)
    begins, ends = np.empty_like(rows), np.empty_like(rows)
    for row, begin, end in zip(rows, begins, ends, strict=True):
        begin[:], end[:] = _runs(row)
    position = np.arange(rows.shape[1])
    text = rows < 0
    first = np.zeros_like(position)
    if sliding_window is not None:
        first = np.maximum(position + 1 - size("sliding_window", sliding_window), 0)
    begin = np.where(text, first, np.minimum(first, begins))
    end = np.where(text, position + 1, ends)
    if images.ndim == 1:
        return begin[0], end[0]
    return begin[:, np.newaxis], end[:, np.newaxis]


def _runs(row: Int64Array) -> Spans:
    """Where the run of equal numbers that each token lies in begins and ends."""
    starts = np.flatnonzero(np.diff(row, prepend=row[:1] - 1)) if row.size else row
    numbers = row[starts][row[starts] >= 0]
    if np.unique(numbers).size != numbers.size:
        raise ValueError(f"blocks: the tokens of an image must lie side by side: {row.tolist()}")
    edges = np.append(starts, row.size)
    lengths = np.diff(edges)
    return np.repeat(edges[:-1], lengths), np.repeat(edges[1:], lengths)
