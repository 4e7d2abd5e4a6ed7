"""The rows of `numattn bench`: what is computed, and how its work is counted.

attention    4 · H · D operations for each query and key that it sees
decoding     bytes of the keys and values that are read, each once
Linear       2 · M · N · K operations
texts        those of the installed model, with their tokenisation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import numattn as na
from numattn._dtypes import STORED

Call = Callable[[], object]

# Of BERT's base model and of Llama 3's of 8 billion, in the sizes that everyday calls have.
HEADS, HEAD_DIM, LENGTHS = 12, 64, (512, 2048)
QUERY_HEADS, KEY_HEADS, WIDE_HEAD = 32, 8, 128
# 134 MB of float32: more than caches hold, as in a model of many layers.
LAYERS, CACHED = 4, 4096
ROWS, INPUTS, OUTPUTS = 512, 768, 3072
TEXTS = 64
TEXT = "How do I reset the password of my account number {}, if I have lost my phone?"

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Row:
    """Something to measure."""

    name: str
    dtype: str
    unit: str
    work: float
    """How much a call does: operations, bytes or texts."""
    prepare: Callable[[], Call]
    """Makes the call; ImportError or FileNotFoundError where something is not installed."""
    prepare_peer: Callable[[], Call] | None = None
    """Makes the same call of PyTorch's."""

    def rate(self, seconds: float) -> float:
        """Return the work of a second, in the row's unit."""
        return self.work / seconds / (1 if self.unit == "texts/s" else 1e9)


def rows() -> list[Row]:
    """Return all rows."""
    found = [
        attention_row(dtype, length, causal)
        for dtype in ("float32", "bfloat16")
        for length in LENGTHS
        for causal in (False, True)
    ]
    found += [decoding_row(dtype) for dtype in ("float32", "bfloat16", "int8")]
    found += [linear_row(dtype) for dtype in STORED]
    return [*found, texts_row()]


def normal(dtype: str, *shape: int) -> NDArray[Any]:
    """Return normal numbers, the same at every call.

    Raises
    ------
    ImportError
        If they are bfloat16, and ml_dtypes is not installed.
    """
    numbers: NDArray[Any] = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("ml_dtypes is not installed: pip install ml_dtypes") from None
        numbers = numbers.astype(ml_dtypes.bfloat16)
    return numbers


def attention_row(dtype: str, length: int, causal: bool) -> Row:
    """Return a row of attention among tokens of one text."""
    shape = (1, HEADS, length, HEAD_DIM)
    pairs = length * (length + 1) // 2 if causal else length * length

    def prepare() -> Call:
        q, k, v = (normal(dtype, *shape) for _ in range(3))
        out = np.empty_like(q)
        return lambda: na.attention(q, k, v, is_causal=causal, out=out)

    def prepare_peer() -> Call:
        import torch

        q, k, v = (normal("float32", *shape) for _ in range(3))
        tensors = [torch.from_numpy(each).to(getattr(torch, dtype)) for each in (q, k, v)]
        function = torch.nn.functional.scaled_dot_product_attention

        def call() -> object:
            with torch.inference_mode():
                return function(*tensors, is_causal=causal)

        return call

    name = f"attention, {length} tokens{', causal' if causal else ''}"
    work = 4.0 * HEADS * HEAD_DIM * pairs
    return Row(name, dtype, "GFLOP/s", work, prepare, prepare_peer)


def decoding_row(dtype: str) -> Row:
    """Return a row of a decoder's step: one new token over the cache of all layers."""
    token = (1, KEY_HEADS, 1, WIDE_HEAD)
    scales = 4 * 2 * LAYERS * KEY_HEADS * CACHED if dtype == "int8" else 0
    work = 2.0 * LAYERS * KEY_HEADS * CACHED * WIDE_HEAD * ITEM_BYTES[dtype] + scales

    def prepare() -> Call:
        given = "float32" if dtype == "int8" else dtype
        keys = normal(given, 1, KEY_HEADS, CACHED - 1, WIDE_HEAD)
        q, new = normal(given, 1, QUERY_HEADS, 1, WIDE_HEAD), normal(given, *token)
        cache = na.KVCache(
            *(LAYERS, 1, KEY_HEADS, WIDE_HEAD),
            dtype=keys.dtype,
            storage="int8" if dtype == "int8" else None,
            capacity=CACHED,
        )
        for layer in range(LAYERS):
            cache.append(layer, keys, keys)

        def step() -> None:
            for layer in range(LAYERS):
                cache.attend(layer, q, new, new)
            cache.truncate(CACHED - 1)

        return step

    return Row(f"decoding over {CACHED} tokens", dtype, "GB/s", work, prepare)


def linear_row(dtype: str) -> Row:
    """Return a row of a projection of float32 by weights that are stored in some way."""

    def prepare() -> Call:
        weight = normal("float32", OUTPUTS, INPUTS) / np.float32(INPUTS**0.5)
        layer, x = na.Linear(weight, dtype=dtype), normal("float32", ROWS, INPUTS)
        out = np.empty((ROWS, OUTPUTS), np.float32)
        return lambda: layer(x, out=out)

    name = f"Linear, {ROWS} × {INPUTS} → {OUTPUTS}"
    return Row(name, dtype, "GFLOP/s", 2.0 * ROWS * INPUTS * OUTPUTS, prepare)


def texts_row() -> Row:
    """Return the row of texts to vectors by the installed model."""

    def prepare() -> Call:
        from numattn.models import installed_folder, load

        model = load(installed_folder())
        texts = [TEXT.format(number) for number in range(TEXTS)]
        return lambda: model.encode(texts)

    return Row("all-MiniLM-L6-v2, texts of 21 tokens", "float32", "texts/s", TEXTS, prepare)
