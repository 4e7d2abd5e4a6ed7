"""One policy of tolerance: what a result may differ from the float64 reference by, derived.

With unit-normal q, k, v and u the unit roundoff of a dtype (2^-24, 2^-11, 2^-8):

float32     ‖o − ref‖ ≤ ε·‖ref‖,   ε = 5e-7·(1 + log2(Sk)/8)
            About 8·u, growing with the depth of the sum over the keys.

16 bits     ‖o − ref‖ ≤ max(1.15·‖naive − ref‖, ‖round(ref) − ref‖ + 2·ε·‖ref‖)
            naive is the computation anybody would write in that dtype: inputs as given, float32
            arithmetic, weights rounded to the dtype, output rounded. The second term matters only
            for a handful of outputs, where the roundings of the naive result may cancel by chance
            so that nothing could be as near: it is what float32 arithmetic with one correct
            rounding at the end cannot exceed. (If |x − ref| ≤ δ, then
            |round(x) − ref| ≤ |x − ref| + |round(x) − x| ≤ δ + |round(ref) − x|
            ≤ |round(ref) − ref| + 2·δ.) With terms by distance, which are float32 whatever the
            dtype, it is the only bound.

‖ref‖ itself may be tiny by chance when the outputs are a handful: o = Σ w_j·v_j with v unit-normal
has the expected square Σ w_j², so ‖ref‖² is near to Dv·Σ w² when there are many outputs. The larger
of the two is used.

Linear      with bfloat16 storage, as above, naive being both factors rounded to bfloat16, float32
            arithmetic, output rounded to its dtype. ε is that of `linear_epsilon`, and what it is
            of is ‖x‖·‖W‖/√depth, the expected size of x·Wᵀ, where ‖ref‖ is smaller.

"high"      ‖o − ref‖ ≤ 2e-5·‖ref‖, as the contract says for float32 in bfloat16 parts.

lse         ‖lse − ref‖ ≤ ε·‖1 + |ref|‖: the relative error ε of the sum, and the rounding of the
            result. float32 in every dtype.

Where the reference is not finite, the result must be the same NaN or infinity.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import BlockMask, reference
from numattn.position import Relative
from numattn.reference.storage import round_to_bfloat16

Array = NDArray[Any]

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

# ‖o − ref‖/‖ref‖ with precision="high".
HIGH = 2e-5


def float32_epsilon(key_len: int) -> float:
    """Return ε, the relative error of attention over that many keys in float32."""
    return 5e-7 * (1 + math.log2(max(key_len, 1)) / 8)


def linear_epsilon(depth: int) -> float:
    """Return the relative error of sums of `depth` unit-normal products in float32.

    The partial sum after i terms has the size √i, and rounding it errs by 0.41·u of that on average
    (u/√3, less for significands that are not just above a power of two). Over a sequential sum of n
    terms that is 0.41·u·√(Σ i) ≈ 0.29·u·n, or 0.29·u·√n of the result's size √n. Four times that,
    as few outputs may all be unlucky, and 4·u for what follows: bias, activation, residual.
    """
    return UNIT_ROUNDOFF["float32"] * (1.2 * math.sqrt(depth) + 4)


def distance(got: Array, expected: Array) -> float:
    """Return ‖got − expected‖ over the finite entries; the others must be the same."""
    got, expected = np.asarray(got).astype(np.float64), np.asarray(expected).astype(np.float64)
    assert got.shape == expected.shape, f"shape {got.shape} for {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(
        np.where(finite, 0.0, expected),
        np.where(np.isfinite(got), 0.0, got),
        "entries that are not finite differ",
    )
    return float(np.linalg.norm(got[finite] - expected[finite]))


def norm(x: Array) -> float:
    """Return ‖x‖ over the finite entries."""
    x = np.asarray(x).astype(np.float64)
    return float(np.linalg.norm(x[np.isfinite(x)]))


def assert_linear_close(got: Array, expected: Array, depth: int, element_size: float = 0.0) -> None:
    """Check a float32 result of sums of `depth` products, followed by elementwise operations.

    `element_size` is what an element has on average, for when the results are a handful.
    """
    size = max(norm(expected), element_size * math.sqrt(expected.size))
    error, bound = distance(got, expected), linear_epsilon(depth) * size
    assert error <= bound, f"error {error:.3g} exceeds {bound:.3g}"


@dataclass(frozen=True)
class ExpectedLinear:
    """The reference's result of one projection, and how far from it a result may lie."""

    y: Array
    dtype: np.dtype[Any]
    bound: float

    def check(self, y: Array) -> None:
        assert y.dtype == self.dtype, f"dtype {y.dtype} for {self.dtype}"
        error = distance(y, self.y)
        assert error <= self.bound, f"error {error:.3g} exceeds {self.bound:.3g}"


def expect_linear(
    weight: Array,
    bias: Array | None,
    x: Array,
    dtype: Any = np.float32,
    storage: str = "float32",
    **options: Any,
) -> ExpectedLinear:
    """Return what a projection of random numbers gives in `dtype`, and its tolerance."""
    dtype = np.dtype(dtype)
    exact = reference.Linear(weight, bias, dtype=storage)
    y = exact(x, **options)
    size = max(norm(y), norm(x) * norm(weight) / math.sqrt(x.shape[-1]))
    bound = linear_epsilon(x.shape[-1]) * size
    if dtype != np.float32:
        bound = rounding_error(y, dtype) + 2 * bound
    if storage == "bfloat16":
        # In float64 instead of float32: the difference is lost beside the roundings, or 0 and x
        # and the result are such that `bound` is the float32 arithmetic's.
        naive = exact(round_to_bfloat16(np.asarray(x).astype(np.float64)), **options)
        with np.errstate(all="ignore"):
            naive = naive.astype(dtype)
        bound = max(1.15 * distance_where_finite(naive, y), bound)
    return ExpectedLinear(y, dtype, bound)


@dataclass(frozen=True)
class Expected:
    """The reference's result for one call, and how far from it a result may lie."""

    o: Array
    lse: Array
    dtype: np.dtype[Any]
    o_bound: float
    lse_bound: float

    def check(self, o: Array, lse: Array | None = None) -> None:
        assert o.dtype == self.dtype, f"dtype {o.dtype} for {self.dtype}"
        error = distance(o, self.o)
        assert error <= self.o_bound, f"o: error {error:.3g} exceeds {self.o_bound:.3g}"
        if lse is None:
            return
        assert lse.dtype == np.float32, f"lse has dtype {lse.dtype}"
        error = distance(lse, self.lse)
        assert error <= self.lse_bound, f"lse: error {error:.3g} exceeds {self.lse_bound:.3g}"


def expect(q: Array, k: Array, v: Array, **options: Any) -> Expected:
    """Return the reference's result for unit-normal inputs and its tolerance.

    Remembered, because a test asks for the same at each instruction set.
    """
    key = fingerprint(q, k, v, *itertools.chain(*sorted(options.items())))
    if key not in _remembered:
        if len(_remembered) >= 1000:  # more than any one test needs, some 100 MB
            _remembered.pop(next(iter(_remembered)))
        _remembered[key] = compute_expected(q, k, v, **options)
    return _remembered[key]


_remembered: dict[bytes, Expected] = {}


def fingerprint(*arguments: Any) -> bytes:
    """Return a digest of arrays by their contents and of anything else by what it prints as."""
    digest = hashlib.blake2b()
    for x in arguments:
        if isinstance(x, np.ndarray):
            digest.update(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
        elif isinstance(x, Relative):
            digest.update(fingerprint(*vars(x).values()))
        elif isinstance(x, BlockMask):
            digest.update(fingerprint(x.shape, x.starts, x.entries, x.words))
        elif isinstance(x, tuple):
            digest.update(fingerprint(*x))
        else:
            digest.update(repr(x).encode())
    return digest.digest()


def compute_expected(q: Array, k: Array, v: Array, **options: Any) -> Expected:
    layout = options.get("layout", "bhsd")
    o, lse = reference.attention(q, k, v, return_lse=True, **options)
    weights = reference.attention_weights(q, k, **options)
    value = v.swapaxes(-3, -2) if layout == "bshd" else v
    epsilon = float32_epsilon(k.shape[-3 if layout == "bshd" else -2])
    size = max(norm(o), math.sqrt(v.shape[-1]) * norm(weights))
    o_bound = epsilon * size
    if q.dtype != np.float32:
        best = rounding_error(o, q.dtype) + 2 * o_bound
        if options.get("relative") is None:
            naive = naive_attention(weights, value)
            heads_first = o.swapaxes(-3, -2) if layout == "bshd" else o
            best = max(1.15 * distance_where_finite(naive, heads_first), best)
        o_bound = best
    return Expected(o, lse, q.dtype, o_bound, epsilon * norm(1 + np.abs(lse)))


def naive_attention(weights: Array, value: Array) -> Array:
    """Return attention as one would write it in value's 16-bit dtype, (B, Hq, Sq, Dv).

    The weights (B, Hq, Sq, Sk) come from the reference and not from float32 arithmetic: the
    difference, 1e-7, is lost in the rounding of 5e-4 or 4e-3 that follows.
    """
    group = weights.shape[-3] // value.shape[-3]
    rounded = weights.astype(np.float32).astype(value.dtype).astype(np.float32)
    shared = np.repeat(value.astype(np.float32), group, axis=-3)
    with np.errstate(all="ignore"):
        o: Array = (rounded @ shared).astype(value.dtype)
    return o


def rounding_error(x: Array, dtype: np.dtype[Any]) -> float:
    """Return ‖round(x) − x‖ for the dtype."""
    with np.errstate(all="ignore"):
        rounded = x.astype(dtype)
    return distance_where_finite(rounded, x)


def distance_where_finite(got: Array, expected: Array) -> float:
    """Return ‖got − expected‖ over the entries where both are finite."""
    got = got.astype(np.float64)
    both = np.isfinite(got) & np.isfinite(expected)
    return float(np.linalg.norm(got[both] - expected[both]))


def assert_weights_close(got: Array, expected: Array) -> None:
    """Check float32 probabilities (B, Hq, R, Sk): 0 exactly where the reference has 0."""
    assert got.dtype == np.float32, f"weights have dtype {got.dtype}"
    np.testing.assert_array_equal(got[expected == 0], 0.0)
    error, bound = distance(got, expected), float32_epsilon(got.shape[-1]) * norm(expected)
    assert error <= bound, f"weights: error {error:.3g} exceeds {bound:.3g}"


def assert_same_bits(got: Array, expected: Array, what: str = "") -> None:
    """Check that two arrays hold the same bits, NaN and the sign of 0 included."""
    assert got.dtype == expected.dtype and got.shape == expected.shape, what
    as_bits = np.dtype(f"uint{8 * got.dtype.itemsize}")
    np.testing.assert_array_equal(
        np.ascontiguousarray(got).view(as_bits),
        np.ascontiguousarray(expected).view(as_bits),
        what,
    )
