"""The rows of the comparison, as data.

A row says what is computed, on which operands and how its work is counted. Who computes it is the
business of `ours.py` and `peers/`; what is right is the business of `oracle.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Operands = dict[str, NDArray[Any]]

COMPUTING = "computing"  # rows of one group stand in one table
ALIGNMENT = 64  # bytes: one cache line, what every peer gives its own tensors
ITEM_BYTES = {"f32": 4, "bf16": 2, "f16": 2}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype called `name` in a row ("f32", "bf16" or "f16")."""
    if name == "bf16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype({"f32": np.float32, "f16": np.float16}[name])


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised C-contiguous array whose first byte lies on a cache line."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    store = np.empty(nbytes + ALIGNMENT, dtype=np.uint8)
    start = -store.ctypes.data % ALIGNMENT
    return store[start : start + nbytes].view(dtype).reshape(shape)


def aligned_copy(array: NDArray[Any]) -> NDArray[Any]:
    """A C-contiguous, cache-line-aligned copy."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class Source:
    """Unit-normal operands of one dtype: the same ones in every run, for every contestant."""

    def __init__(self, dtype: str, seed: int = 20) -> None:
        self.dtype = numpy_dtype(dtype)
        self.generator = np.random.default_rng(seed)

    def normal(self, *shape: int, spread: float = 1.0) -> NDArray[Any]:
        """Normal numbers of standard deviation `spread`, rounded once to the dtype."""
        single = aligned_empty(shape, np.dtype(np.float32))
        self.generator.standard_normal(out=single, dtype=np.float32)
        single *= np.float32(spread)
        return single if self.dtype == np.float32 else aligned_copy(single.astype(self.dtype))

    def mask(self, rows: int, columns: int, share: float) -> NDArray[np.bool_]:
        """A (1, 1, rows, columns) mask, True with probability `share`; every row attends a key."""
        mask = self.generator.random((1, 1, rows, columns), dtype=np.float32) < share
        mask[..., 0] = True
        return aligned_copy(mask)


# Tells right from wrong, no more: above the rounding of honest work in the dtype (a whole encoder
# 1e-6 in f32 and 1e-2 in bf16, attention 5e-4 in f16), below the error of a wrong mask or scale
# (order 1), and in f16 also below that of a peer who computes in bf16 instead (4e-3).
WRONG_BEYOND = {"f32": 1e-4, "f16": 2e-3, "bf16": 5e-2}


class CaseFacts:
    """What is so of a case unless it says otherwise."""

    wrong_beyond: ClassVar[dict[str, float]] = WRONG_BEYOND
    """By dtype: the relative error from which on a result is wrong."""
    also_in_one_piece: ClassVar[bool] = False
    """Whether numattn is held to itself on keys and values side by side and in the row's dtype."""

    @property
    def length(self) -> int | None:
        """Keys of an attention row: the plot's horizontal axis."""
        return None


@dataclass(frozen=True)
class AttentionCase(CaseFacts):
    """One call of scaled dot product attention on (batch, head, sequence, head_dim) arrays."""

    name: str
    batch: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    kv_heads: int = 0  # 0: as many as query heads
    causal: bool = False
    window: tuple[int, int] | None = None
    dense_mask: bool = False
    precision: str = "highest"
    unit: str = "GFLOP/s"
    dtypes: tuple[str, ...] = ("f32", "bf16", "f16")
    group: str = COMPUTING

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def query_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.heads, self.queries, self.head_dim)

    @property
    def key_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.key_heads, self.keys, self.head_dim)

    def span(self, query: int) -> tuple[int, int]:
        """Keys [low, high) that structure (causal, window) lets row `query` see."""
        low, high = 0, self.keys
        if self.causal:
            high = min(high, query + 1)
        if self.window is not None:
            left, right = self.window
            low, high = max(low, query - left), min(high, query + right + 1)
        return low, max(low, high)

    def visible_pairs(self) -> int:
        """(query, key) pairs that structure leaves; a dense mask counts as full."""
        spans = (self.span(query) for query in range(self.queries))
        return sum(high - low for low, high in spans)

    def work(self, dtype: str) -> float:
        """GFLOP/s: 4·B·H·D per visible pair. GB/s: bytes of K and V, read once."""
        if self.unit == "GB/s":
            return 2.0 * np.prod(self.key_shape) * ITEM_BYTES[dtype]
        return 4.0 * self.batch * self.heads * self.head_dim * self.visible_pairs()

    @property
    def length(self) -> int:
        return self.keys

    def operands(self, dtype: str) -> Operands:
        source = Source(dtype)
        operands: Operands = {
            "query": source.normal(*self.query_shape),
            "key": source.normal(*self.key_shape),
            "value": source.normal(*self.key_shape),
        }
        if self.dense_mask:
            operands["mask"] = source.mask(self.queries, self.keys, share=0.8)
        return operands


@dataclass(frozen=True)
class LinearCase(CaseFacts):
    """activation(x · weightᵀ + bias), with x (rows, inputs) and weight (outputs, inputs).

    A plain product has neither bias nor activation.
    """

    name: str
    rows: int
    inputs: int
    outputs: int
    activation: str | None = None
    plain: bool = False
    unit: str = "GFLOP/s"
    dtypes: tuple[str, ...] = ("f32", "bf16")
    group: str = COMPUTING

    def work(self, dtype: str) -> float:
        """GFLOP/s: 2·M·N·K. GB/s: bytes of the weights, read once."""
        if self.unit == "GB/s":
            return float(self.inputs * self.outputs * ITEM_BYTES[dtype])
        return 2.0 * self.rows * self.inputs * self.outputs

    def operands(self, dtype: str) -> Operands:
        source = Source(dtype)
        operands: Operands = {
            "x": source.normal(self.rows, self.inputs),
            "weight": source.normal(self.outputs, self.inputs, spread=self.inputs**-0.5),
        }
        return operands if self.plain else operands | {"bias": source.normal(self.outputs)}


@dataclass(frozen=True)
class IntegerCase(LinearCase):
    """The same where everybody may keep the weights as int8, and round what they meet.

    The weights are given as floats. What integers cost in accuracy stands in the error. The peers
    round inputs to 8 bits, numattn does so by the storage "w8a8".
    """

    dtypes: tuple[str, ...] = ("f32",)
    storage: str = "int8"

    # 8 bits for weights and for rows of x leave some 1e-2; an integer of another row, order 1.
    wrong_beyond: ClassVar[dict[str, float]] = {"f32": 5e-2}


@dataclass(frozen=True)
class LayerCase(CaseFacts):
    """Multi-head self-attention with its four projections, on x (batch, sequence, embed)."""

    name: str
    batch: int
    sequence: int
    embed: int
    heads: int
    unit: str = "GFLOP/s"
    dtypes: tuple[str, ...] = ("f32", "bf16")
    group: str = COMPUTING

    def work(self, dtype: str) -> float:
        """Four projections of 2·M·E·E and the attention's 4·M·S·E, with M = batch·sequence."""
        tokens = self.batch * self.sequence
        return 8.0 * tokens * self.embed**2 + 4.0 * tokens * self.sequence * self.embed

    def operands(self, dtype: str) -> Operands:
        source = Source(dtype)
        embed, spread = self.embed, self.embed**-0.5
        return {
            "x": source.normal(self.batch, self.sequence, embed),
            "in_proj_weight": source.normal(3 * embed, embed, spread=spread),
            "in_proj_bias": source.normal(3 * embed),
            "out_proj.weight": source.normal(embed, embed, spread=spread),
            "out_proj.bias": source.normal(embed),
        }


@dataclass(frozen=True)
class EncoderCase(CaseFacts):
    """All of MiniLM-L6: token ids (batch, tokens) to the last hidden state."""

    name: str
    batch: int
    tokens: int
    unit: str = "ms"
    dtypes: tuple[str, ...] = ("f32", "bf16")
    group: str = COMPUTING

    def work(self, dtype: str) -> float:
        """A whole model is stated in time: it does one model's work."""
        return 1.0

    def operands(self, dtype: str) -> Operands:
        # 999 is the last of BERT's special and unused ids; 30522 is the size of its vocabulary.
        generator = np.random.default_rng(20)
        ids = generator.integers(1000, 30522, (self.batch, self.tokens), dtype=np.int64)
        return {"token_ids": ids}


@dataclass(frozen=True)
class IntegerEncoderCase(EncoderCase):
    """The same where everybody may keep the weights as int8, and round what they meet to 8 bits."""

    dtypes: tuple[str, ...] = ("f32",)
    # Some 1e-2 of every product, through six layers; the hidden states of other tokens, order 1.
    wrong_beyond: ClassVar[dict[str, float]] = {"f32": 2e-1}


@dataclass(frozen=True)
class RaggedEncoderCase(EncoderCase):
    """MiniLM-L6 on a batch of texts that have from `shortest` to `tokens` tokens."""

    shortest: int = 8

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.random.default_rng(21).integers(self.shortest, self.tokens + 1, self.batch)

    @property
    def real(self) -> NDArray[np.bool_]:
        """Which ids are tokens (B, S); the others are padding."""
        return np.asarray(np.arange(self.tokens) < self.lengths[:, np.newaxis])


@dataclass(frozen=True)
class ConcurrentCase(EncoderCase):
    """MiniLM-L6 on single texts from several threads of Python, each on one core.

    Each thread takes its share of `batch` texts, one text a call: small requests of a service.
    """

    threads: int = 2


Case = AttentionCase | LinearCase | LayerCase | EncoderCase


def bert(batch: int, tokens: int) -> EncoderCase:
    return EncoderCase(f"MiniLM-L6 {batch}x{tokens} tokens", batch, tokens)


def table() -> list[Case]:
    """The rows that decide, in the order in which they are printed."""
    full = AttentionCase("B1 H12 S2048 D64", 1, 12, 2048, 2048, 64)
    llama = AttentionCase(
        "B1 H32/8 S2048 D128 causal", 1, 32, 2048, 2048, 128, kv_heads=8, causal=True
    )
    decode = AttentionCase(
        "decode B1 S1x4096 H32/8 D128", 1, 32, 1, 4096, 128, kv_heads=8, unit="GB/s"
    )
    long = AttentionCase("B1 H4 S16384 D64 causal", 1, 4, 16384, 16384, 64, causal=True)
    integers = IntegerCase(
        "Linear 2048x384->1536 GELU, int8 weights", 2048, 384, 1536, activation="gelu"
    )
    one_row = IntegerCase("Linear 1x2048->2048, int8 weights", 1, 2048, 2048, unit="GB/s")
    window = AttentionCase(
        "B1 H4 S8192 D64 window 511", 1, 4, 8192, 8192, 64, window=(511, 0), unit="ms"
    )
    return [
        AttentionCase("B8 H12 S128 D64", 8, 12, 128, 128, 64),
        AttentionCase("B1 H12 S197 D64", 1, 12, 197, 197, 64),
        full,
        replace(full, name=f"{full.name} causal", causal=True),
        replace(full, name=f"{full.name} dense mask", dense_mask=True),
        replace(full, name=f"{full.name} high", precision="high", dtypes=("f32",)),
        llama,
        decode,
        replace(decode, name="decode B8 S1x4096 H32/8 D128", batch=8),
        window,
        long,
        AttentionCase("B1 H12 S1000 D80", 1, 12, 1000, 1000, 80),
        AttentionCase("B1 H12 S77x1500 D40 cross", 1, 12, 77, 1500, 40),
        LayerCase("MultiHeadAttention B8 S128 E768 H12", 8, 128, 768, 12),
        LinearCase("Linear 2048x384->1536 GELU", 2048, 384, 1536, activation="gelu"),
        LinearCase("product 2048x384->1536", 2048, 384, 1536, plain=True),
        integers,
        replace(integers, name="Linear 2048x384->1536 GELU, w8a8", storage="w8a8"),
        LinearCase("Linear 1x2048->2048", 1, 2048, 2048, unit="GB/s"),
        LinearCase("Linear 4x2048->2048", 4, 2048, 2048, unit="GB/s"),
        one_row,
        replace(one_row, name="Linear 1x2048->2048, w8a8", storage="w8a8"),
        bert(32, 64),
        bert(8, 256),
        bert(1, 16),
        IntegerEncoderCase("MiniLM-L6 32x64 tokens, w8a8", 32, 64),
        RaggedEncoderCase("MiniLM-L6 32 texts of 8-256 tokens", 32, 256),
        *(
            ConcurrentCase(
                f"MiniLM-L6 64 times 1x16 tokens from {threads} threads", 64, 16, threads=threads
            )
            for threads in (1, 2)
        ),
    ]


def sweep() -> list[Case]:
    """One head layout over sequence lengths, for the plot."""
    lengths = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
    return [AttentionCase(f"sweep B1 H12 S{s} D64", 1, 12, s, s, 64) for s in lengths]


def long_causal() -> AttentionCase:
    """The row whose memory is measured: its S×S scores would take 32 GiB."""
    return AttentionCase("B1 H8 S32768 D64 causal", 1, 8, 32768, 32768, 64, causal=True)
