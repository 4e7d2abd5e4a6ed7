"""The axes of attention as data, and a selection of cases that covers every pair of their values.

The full product of the axes below has some 4·10^11 cases. Faults in blocked kernels nearly always
need one value, or two values of different axes, to show: the selection holds every pair.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from numattn import BlockMask

Array = NDArray[Any]
Options = dict[str, Any]

DTYPES: dict[str, Any] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

# Forms in which a cache stores tokens, beside as they come.
STORAGES = ("int8",)

# One below, at and above 1, 2, 3, 4 and 8 vectors of 16 floats, and the query blocks made of them.
LENGTHS = (1, 15, 16, 17, 31, 33, 47, 48, 49, 63, 65, 129)

# Shapes of mask and bias: each letter keeps that dimension of (B, Hq, Sq, Sk), a 1 broadcasts it.
BROADCASTS = ("b11k", "11qk", "1h11", "bhqk", "bh1k", "b1q1", "1111", "qk", "k")

AXES: dict[str, tuple[Any, ...]] = {
    "dtype": tuple(DTYPES),
    "layout": ("bhsd", "bshd"),
    "heads": ((1, 1, 1), (2, 4, 4), (1, 6, 2), (3, 4, 1)),  # (B, Hq, Hkv)
    "query_len": LENGTHS,
    "key_len": LENGTHS,
    "head_dim": (1, 3, 8, 16, 40, 64, 80, 128, 129),
    "value_dim": (1, 3, 8, 16, 40, 64, 80, 128, 129),
    "is_causal": (False, True),
    "q_offset": ("zero", "bottom_right", "per_batch"),
    "window": (None, (-1, -1), (0, 0), (3, None), (7, 5), (None, 2), (40, -1), (16, 16)),
    "key_spans": (None, "111", "1hq", "b1q", "bhq"),
    "sink_tokens": (0, 1, 5, 70),
    "block_mask": (None, "11", "1h", "bh"),
    "kv_lens": (None, "full", "ragged"),
    "scale": (None, 0.5, -1.0),  # in units of 1/sqrt(D), which keeps the scores unit-normal
    "softcap": (None, 2.0, 30.0),
    "bias": (None, *itertools.product(BROADCASTS, ("float32", "own"))),
    "mask": (None, *BROADCASTS),
    "alibi": (None, "h", "bh"),
    "sinks": (False, True),
}


@dataclass(frozen=True)
class Case:
    """One value of each axis."""

    dtype: str
    layout: str
    heads: tuple[int, int, int]
    query_len: int
    key_len: int
    head_dim: int
    value_dim: int
    is_causal: bool
    q_offset: str
    window: tuple[int | None, int | None] | None
    key_spans: str | None
    sink_tokens: int
    block_mask: str | None
    kv_lens: str | None
    scale: float | None
    softcap: float | None
    bias: tuple[str, str] | None
    mask: str | None
    alibi: str | None
    sinks: bool

    def __str__(self) -> str:
        named = {name: value for name, value in asdict(self).items() if value not in (None, False)}
        return "-".join(f"{name}={value}".replace(" ", "") for name, value in named.items())

    def inputs(self) -> tuple[Array, Array, Array, Options]:
        """Return q, k, v, unit-normal, and the score arguments; the same ones at every call."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        batch, num_heads, num_kv_heads = self.heads
        q = normal(rng, (batch, num_heads, self.query_len, self.head_dim), self.dtype)
        k = normal(rng, (batch, num_kv_heads, self.key_len, self.head_dim), self.dtype)
        v = normal(rng, (batch, num_kv_heads, self.key_len, self.value_dim), self.dtype)
        if self.layout == "bshd":
            q, k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
        return q, k, v, {"layout": self.layout, **self.score_arguments(rng)}

    def score_arguments(self, rng: np.random.Generator) -> Options:
        batch, num_heads, _ = self.heads
        full = (batch, num_heads, self.query_len, self.key_len)
        options: Options = {
            "is_causal": self.is_causal,
            "window": self.window,
            "sink_tokens": self.sink_tokens,
            "softcap": self.softcap,
            "q_offset": {
                "zero": 0,
                "bottom_right": self.key_len - self.query_len,
                "per_batch": rng.integers(-self.query_len // 2, self.key_len, batch),
            }[self.q_offset],
        }
        if self.key_spans is not None:
            shape = broadcastable(self.key_spans, full[:3])
            options["key_spans"] = key_spans(rng, shape, self.key_len)
        if self.block_mask is not None:
            shared = broadcastable(self.block_mask, full[:2])
            options["block_mask"] = block_mask(rng, (shared[0], shared[1], *full[2:]))
        if self.scale is not None:
            options["scale"] = self.scale / np.sqrt(self.head_dim)
        if self.kv_lens == "full":
            options["kv_lens"] = np.full(batch, self.key_len)
        if self.kv_lens == "ragged":
            options["kv_lens"] = rng.integers(0, self.key_len + 1, batch).astype(np.int32)
        if self.bias is not None:
            shape, dtype = broadcastable(self.bias[0], full), self.bias[1]
            options["bias"] = normal(rng, shape, self.dtype if dtype == "own" else dtype)
            options["bias"][rng.random(shape) < 0.1] = -np.inf
        if self.mask is not None:
            options["mask"] = rng.random(broadcastable(self.mask, full)) < 0.7
        if self.alibi is not None:
            # The far end of the keys then lies 2 below the near one: still of the order of 1.
            steepest = 2 / max(self.query_len, self.key_len)
            shape = (num_heads,) if self.alibi == "h" else (batch, num_heads)
            options["alibi_slopes"] = (steepest * rng.random(shape)).astype(np.float32)
        if self.sinks:
            options["sinks"] = normal(rng, (num_heads,), "float32")
        return options


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    """Return unit-normal numbers, rounded to the dtype of that name."""
    return rng.standard_normal(shape, dtype=np.float32).astype(DTYPES[dtype])


def unit_inputs(
    rng: np.random.Generator,
    heads: tuple[int, int, int],
    lengths: tuple[int, int],
    dims: tuple[int, int] = (16, 16),
    dtype: str = "float32",
) -> tuple[Array, Array, Array]:
    """Return unit-normal q, k, v in bhsd: heads (B, Hq, Hkv), lengths (Sq, Sk), dims (D, Dv)."""
    batch, num_heads, num_kv_heads = heads
    return (
        normal(rng, (batch, num_heads, lengths[0], dims[0]), dtype),
        normal(rng, (batch, num_kv_heads, lengths[1], dims[0]), dtype),
        normal(rng, (batch, num_kv_heads, lengths[1], dims[1]), dtype),
    )


def broadcastable(pattern: str, full: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a pattern of letters means for the last dimensions of `full`."""
    tail = full[len(full) - len(pattern) :]
    return tuple(1 if letter == "1" else size for letter, size in zip(pattern, tail, strict=True))


def key_spans(
    rng: np.random.Generator, shape: tuple[int, ...], key_len: int
) -> tuple[Array, Array]:
    """Return begins and ends within 0 … key_len, wide and narrow ones, one in ten of them empty."""
    begin = rng.integers(0, key_len + 1, shape)
    end = np.minimum(begin + rng.integers(1, key_len + 1, shape), key_len)
    return begin, np.where(rng.random(shape) < 0.1, begin // 2, end)


def block_mask(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> BlockMask:
    """Return a mask of (B, H, Sq, Sk): whole blocks, blocks with bits, and hidden ones."""
    batch, heads, *lengths = shape
    blocks = [-(-length // 64) for length in lengths]
    kind = rng.integers(0, 4, (batch, heads, *blocks)).repeat(64, 2).repeat(64, 3)
    kind = kind[:, :, : lengths[0], : lengths[1]]
    return BlockMask.from_mask((kind == 1) | (kind == 2) & (rng.random(shape) < 0.5))


# One score argument at a time, and all at once: what a test crosses with something else than sizes.
SCORE_FEATURES = (
    "plain",
    "is_causal",
    "window",
    "key_spans",
    "sink_tokens",
    "block_mask",
    "kv_lens",
    "softcap",
    "bias",
    "alibi_slopes",
    "mask",
    "sinks",
    "all",
)

# Those that leave an interval of keys to a row; the others change a score or hide a key.
STRUCTURE = ("is_causal", "window", "key_spans", "sink_tokens", "block_mask", "kv_lens")
SCORE_STEPS = tuple(name for name in SCORE_FEATURES if name not in ("plain", *STRUCTURE, "all"))


def score_feature(name: str, rng: np.random.Generator, full: tuple[int, int, int, int]) -> Options:
    """Return the score arguments of one row of `SCORE_FEATURES` for (B, Hq, Sq, Sk)."""
    batch, num_heads, query_len, key_len = full
    offset = key_len - query_len
    features: dict[str, Options] = {
        "plain": {},
        "is_causal": {"is_causal": True, "q_offset": offset},
        "window": {"window": (key_len // 3, 5), "q_offset": offset},
        "sink_tokens": {"window": (key_len // 3, 5), "q_offset": offset, "sink_tokens": 3},
        "block_mask": {"block_mask": block_mask(rng, (1, num_heads, query_len, key_len))},
        "kv_lens": {"kv_lens": rng.integers(key_len // 2, key_len + 1, batch)},
        "softcap": {"softcap": 3.0},
        "bias": {"bias": normal(rng, (batch, 1, query_len, key_len))},
        "alibi_slopes": {"alibi_slopes": rng.random(num_heads, dtype=np.float32) / key_len},
        "mask": {"mask": rng.random((1, num_heads, query_len, key_len)) < 0.7},
        "sinks": {"sinks": normal(rng, (num_heads,))},
        "key_spans": {
            "key_spans": (
                rng.integers(0, key_len // 4 + 1, (num_heads, query_len)),
                rng.integers(key_len - key_len // 4, key_len + 1, (num_heads, query_len)),
            )
        },
    }
    if name == "all":
        return {key: value for feature in features.values() for key, value in feature.items()}
    return features[name]


@cache
def pairwise_cases() -> tuple[Case, ...]:
    """Return cases in which every two values of different axes meet at least once.

    Greedy: as long as a pair is missing, draw some cases that contain it and keep the one that
    brings the most missing pairs. Deterministic, so that a failing case can be named and run again.
    """
    names = [field.name for field in fields(Case)]
    rng = np.random.default_rng(0)
    # A dict and not a set: its order does not depend on the hash seed of the process.
    missing = {
        ((first, x), (second, y)): None
        for first, second in itertools.combinations(range(len(names)), 2)
        for x in range(len(AXES[names[first]]))
        for y in range(len(AXES[names[second]]))
    }
    sizes = [len(AXES[name]) for name in names]
    chosen: list[Case] = []
    while missing:
        wanted = next(iter(missing))
        candidates = [[int(rng.integers(size)) for size in sizes] for _ in range(20)]
        for candidate in candidates:
            for axis, value in wanted:
                candidate[axis] = value
        best = max(candidates, key=lambda c: sum(pair in missing for pair in pairs_of(c)))
        for pair in pairs_of(best):
            missing.pop(pair, None)
        chosen.append(Case(**{name: AXES[name][i] for name, i in zip(names, best, strict=True)}))
    return tuple(chosen)


def pairs_of(values: list[int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return every pair of (axis, value) that a case contains."""
    return list(itertools.combinations(enumerate(values), 2))
