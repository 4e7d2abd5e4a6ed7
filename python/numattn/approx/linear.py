"""Linear attention: a product of feature maps in place of the exponential.

    o_i = φ(q_i) · Σ_j φ(k_j)ᵀ v_j / φ(q_i) · Σ_j φ(k_j)

The sums over j are all that is kept of the keys: a state of m · (Dv + 1) numbers per head, however
many there were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike

from numattn._aligned import empty
from numattn._arguments import as_array, flag
from numattn._names import Array, Float32Array, Layout
from numattn._pickled import reduced
from numattn.approx.causal import sum_of_seen
from numattn.approx.operands import Operands, require_square

FeatureMap: TypeAlias = Literal["elu", "relu"] | Callable[[Float32Array], Array]

BLOCK = 128  # tokens of a causal block: within it the cost of a token grows with the block
LONG_BLOCK = 2048  # tokens whose features are held at once where order does not matter


class LinearState(NamedTuple):
    """What linear attention keeps of the keys and values that it has seen, in float32.

    Returned by :func:`linear_attention` with ``return_state=True``, and taken as its ``state``.
    """

    values: Float32Array
    """(B, Hkv, m, Dv): Σ_j φ(k_j)ᵀ v_j"""
    weights: Float32Array
    """(B, Hkv, m): Σ_j φ(k_j)"""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


@overload
def linear_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    feature_map: FeatureMap = ...,
    *,
    is_causal: bool = ...,
    state: LinearState | None = ...,
    return_state: Literal[False] = ...,
    layout: Layout = ...,
) -> Array: ...
@overload
def linear_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    feature_map: FeatureMap = ...,
    *,
    is_causal: bool = ...,
    state: LinearState | None = ...,
    return_state: Literal[True],
    layout: Layout = ...,
) -> tuple[Array, LinearState]: ...
def linear_attention(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    feature_map: FeatureMap = "elu",
    *,
    is_causal: bool = False,
    state: LinearState | None = None,
    return_state: bool = False,
    layout: Layout = "bhsd",
) -> Array | tuple[Array, LinearState]:
    """Attention whose weights are products of features: ``φ(q) (φ(k)ᵀ v) / φ(q) Σφ(k)``.

    Time O(S·m·Dv), memory O(S·D + m·Dv). It is an operator of its own, for models trained with it,
    and no estimate of softmax attention: for weights trained with softmax its result means nothing.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16, any strides; arithmetic is float32.
    k, v : arrays of shape (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        q's dtype. Hq is a multiple of Hkv. Without B, three dimensions give three.
    feature_map : {"elu", "relu"} or callable
        φ: ``elu(x) + 1``, ``max(x, 0)``, or a function of a float32 array (..., D) that gives one
        (..., m). It sees the tokens in blocks, and must map each by itself; its numbers should not
        be negative.
    is_causal : bool
        Each query sees the keys up to its own; Sq = Sk.
    state : LinearState, optional
        What an earlier call returned: its keys come before those of this call, and every query sees
        them.
    return_state : bool
        Also return the state with the keys of this call, for the next one.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result.

    Returns
    -------
    o : array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype. A row whose weights sum to 0 is 0.
    state : LinearState
        With ``return_state=True``; the one given is not changed.

    Raises
    ------
    TypeError
        A dtype is not supported, q, k and v disagree, or the state is none.
    ValueError
        Shapes do not fit, or the feature map is unknown.
    MemoryError
        Memory cannot be had.

    Notes
    -----
    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear
    Attention" (2020). Products are NumPy's, and their threads those of its BLAS.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.eye(3, dtype=np.float32)[None]
    >>> whole = na.approx.linear_attention(x, x, x, is_causal=True)
    >>> o, state = na.approx.linear_attention(
    ...     x[:, :2], x[:, :2], x[:, :2], is_causal=True, return_state=True)
    >>> last = x[:, 2:]
    >>> na.approx.linear_attention(last, last, last, is_causal=True, state=state).round(3)
    array([[[0.312, 0.312, 0.375]]], dtype=float32)
    >>> whole[:, 2:].round(3)
    array([[[0.312, 0.312, 0.375]]], dtype=float32)
    """
    operands = Operands.of(q, k, v, layout)
    phi = feature_map if callable(feature_map) else _named_map(feature_map)
    causal, with_state = flag("is_causal", is_causal), flag("return_state", return_state)
    if causal:
        require_square("is_causal", operands.q, operands.k)
    with np.errstate(all="ignore"):
        sums = _first_state(operands, phi, state)
        o, sums = (_causal if causal else _whole)(operands, phi, sums)
    rows = operands.result(o.reshape(*operands.q.shape[:3], o.shape[-1]))
    return (rows, sums) if with_state else rows


def elu_plus_one(x: Float32Array) -> Float32Array:
    """x + 1 for x > 0, exp(x) below."""
    return np.exp(np.minimum(x, 0)) + np.maximum(x, 0)


def _named_map(name: object) -> Callable[[Float32Array], Array]:
    if name == "elu":
        return elu_plus_one
    if name == "relu":
        return lambda x: np.maximum(x, 0)
    raise ValueError(f"feature_map must be 'elu', 'relu' or a function, not {name!r}")


def _features(phi: Callable[[Float32Array], Array], x: Float32Array) -> Float32Array:
    mapped = as_array("feature_map's result", phi(x))
    if mapped.shape[:-1] != x.shape[:-1] or mapped.ndim != x.ndim:
        raise ValueError(
            f"feature_map must give an array {(*x.shape[:-1], 'm')} for one of shape {x.shape}, "
            f"not {mapped.shape}"
        )
    return mapped.astype(np.float32, copy=False)


def _first_state(
    operands: Operands, phi: Callable[[Float32Array], Array], state: LinearState | None
) -> LinearState:
    """Sums of their own memory to begin with: those given, or zeros."""
    count = _features(phi, operands.k[:, :, :1]).shape[-1]
    batch, heads = operands.k.shape[:2]
    shapes = ((batch, heads, count, operands.v.shape[3]), (batch, heads, count))
    if state is None:
        return LinearState(*(np.zeros(shape, np.float32) for shape in shapes))
    if not isinstance(state, LinearState):
        raise TypeError(f"state must be a LinearState, not {type(state).__name__}")
    for part, shape in zip(state, shapes, strict=True):
        if part.shape != shape:
            raise ValueError(f"state must have arrays of shape {shape} here, not {part.shape}")
    return LinearState(*(part.astype(np.float32) for part in state))


def _whole(
    operands: Operands, phi: Callable[[Float32Array], Array], sums: LinearState
) -> tuple[Float32Array, LinearState]:
    """Every query sees every key."""
    for begin in range(0, operands.k.shape[2], LONG_BLOCK):
        block = slice(begin, begin + LONG_BLOCK)
        _add(sums, _features(phi, operands.k[:, :, block]), operands.v[:, :, block])
    q = operands.grouped_queries()
    o = empty((*q.shape[:4], operands.v.shape[3]), np.float32)
    for begin in range(0, q.shape[3], LONG_BLOCK):
        block = slice(begin, begin + LONG_BLOCK)
        o[..., block, :] = _quotient(*_read(sums, _features(phi, q[..., block, :])))
    return o, sums


def _causal(
    operands: Operands, phi: Callable[[Float32Array], Array], sums: LinearState
) -> tuple[Float32Array, LinearState]:
    """Each query sees the state, and of its block the keys up to its own."""
    q = operands.grouped_queries()
    o = empty((*q.shape[:4], operands.v.shape[3]), np.float32)
    for begin in range(0, q.shape[3], BLOCK):
        block = slice(begin, begin + BLOCK)
        keys, values = _features(phi, operands.k[:, :, block]), operands.v[:, :, block]
        queries = _features(phi, q[..., block, :])
        weighed, total = _read(sums, queries)
        pairs = np.tril(queries @ keys.swapaxes(2, 3)[:, :, np.newaxis])
        weighed += sum_of_seen(pairs, values[:, :, np.newaxis])
        total += pairs.sum(axis=-1, keepdims=True)
        o[..., block, :] = _quotient(weighed, total)
        _add(sums, keys, values)
    return o, sums


def _add(sums: LinearState, features: Float32Array, values: Float32Array) -> None:
    sums.values[...] += features.swapaxes(2, 3) @ values
    sums.weights[...] += features.sum(axis=2)


def _read(sums: LinearState, features: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Σ weights · values and Σ weights of queries (B, Hkv, group, C, m) over what a state has."""
    weighed = features @ sums.values[:, :, np.newaxis]
    return weighed, features @ sums.weights[:, :, np.newaxis, :, np.newaxis]


def _quotient(weighed: Float32Array, total: Float32Array) -> Float32Array:
    return np.divide(weighed, total, out=np.zeros_like(weighed), where=total != 0)
