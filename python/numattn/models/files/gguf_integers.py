"""Quantised tensors of GGUF files as the integers that they hold, and the numbers these stand for.

    weight[n][k] = integer[n][k] · scale[n][k // G] + minimum[n][k // G]

in float32, which has the bits of what the library gguf makes of a tensor. That is what
`Linear.from_integers` keeps. Layouts of blocks: ggml's quants, ggml/src/ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array
from .integers import Integers

Bytes = NDArray[np.uint8]


def halves(data: Bytes) -> Float32Array:
    """Return the float16 numbers that bytes hold, two to each."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def nibbles(pairs: Bytes) -> Bytes:
    """Return the lower halves of bytes (..., n), and behind them the upper: (..., 2n)."""
    return np.concatenate([pairs & 15, pairs >> 4], axis=-1)


def q4_0(blocks: Bytes) -> Integers:
    """Read 32 numbers: d, and q of 4 bits; d·(q − 8)."""
    scale = halves(blocks[..., :2])
    return Integers(nibbles(blocks[..., 2:]), scale, scale * np.float32(-8))


def q4_1(blocks: Bytes) -> Integers:
    """Read 32 numbers: d, m, and q of 4 bits; d·q + m."""
    return Integers(nibbles(blocks[..., 4:]), halves(blocks[..., :2]), halves(blocks[..., 2:4]))


def q4_k(blocks: Bytes) -> Integers:
    """Read 256 numbers: d, e, eight s and m of 6 bits, and q of 4 bits; (d·s)·q − e·m.

    Of twelve bytes the first four have s 0 … 3, the next four m 0 … 3, in six bits each; the last
    four have the lower halves of s and m 4 … 7, whose upper two bits are those that six bits leave.
    """
    d, e = halves(blocks[..., :2]), halves(blocks[..., 2:4])
    low, high, last = np.split(blocks[..., 4:16], 3, axis=-1)
    scales = np.concatenate([low & 63, (last & 15) | (low >> 6 << 4)], axis=-1)
    minima = np.concatenate([high & 63, (last >> 4) | (high >> 6 << 4)], axis=-1)
    # Each 32 bytes hold 64 numbers, whose first 32 are the lower halves.
    parts = blocks[..., 16:].reshape(*blocks.shape[:-1], 4, 32)
    integers = nibbles(parts).reshape(*blocks.shape[:-1], 256)
    return Integers(integers, d * scales, -(e * minima))


def q5_0(blocks: Bytes) -> Integers:
    """Read 32 numbers: d, their fifth bits, and their lower four; d·(q − 16)."""
    fifth = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    integers = (nibbles(blocks[..., 6:]) | (fifth << 4)).astype(np.int8) - np.int8(16)
    return Integers(integers, halves(blocks[..., :2]), None)


def q6_k(blocks: Bytes) -> Integers:
    """Read 256 numbers: their lower four bits, their upper two, sixteen s and d; (d·s)·(q − 32).

    In each half of 128 numbers 64 bytes have the lower bits, 32 at a time, and 32 bytes the upper.
    """
    lead = blocks.shape[:-1]
    lower = nibbles(blocks[..., :128].reshape(*lead, 2, 64)).reshape(*lead, 2, 4, 32)
    pairs = blocks[..., 128:192].reshape(*lead, 2, 1, 32)
    upper = (pairs >> np.array([0, 2, 4, 6], np.uint8)[:, np.newaxis]) & np.uint8(3)
    integers = (lower | (upper << 4)).reshape(*lead, 256).astype(np.int8) - np.int8(32)
    scales = blocks[..., 192:208].view(np.int8).astype(np.float32)
    return Integers(integers, halves(blocks[..., 208:]) * scales, None)


def q8_0(blocks: Bytes) -> Integers:
    """Read 32 numbers: d, and q of 8 bits; d·q."""
    return Integers(blocks[..., 2:].view(np.int8), halves(blocks[..., :2]), None)


# Kind → bytes and numbers of a block, and what reads it.
KINDS: dict[str, tuple[int, int, Callable[[Bytes], Integers]]] = {
    "Q4_0": (18, 32, q4_0),
    "Q4_1": (20, 32, q4_1),
    "Q4_K": (144, 256, q4_k),
    "Q5_0": (22, 32, q5_0),
    "Q6_K": (210, 256, q6_k),
    "Q8_0": (34, 32, q8_0),
}


def integers_of(data: Bytes, kind: str) -> Integers:
    """Return the integers of rows of bytes (N, bytes of a row) of one of `KINDS`."""
    size, _, read = KINDS[kind]
    rows = data.shape[0]
    integers, scale, minimum = read(np.ascontiguousarray(data).reshape(rows, -1, size))
    return Integers(
        integers.reshape(rows, -1),
        scale.reshape(rows, -1),
        None if minimum is None else minimum.reshape(rows, -1),
    )
