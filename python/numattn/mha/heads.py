"""Queries, keys and values of heads: projections of x, and of a context."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._aligned import empty
from numattn._arguments import as_array, bounded_integer
from numattn._dtypes import STORED, as_dtype, check_floating, storage_name
from numattn._names import Array, Precision
from numattn._pickled import reduced
from numattn.linear import Linear, as_float_vector, part_of

from .head_norm import HeadNormLike, as_head_norm, normalised


class ProjectedContext(NamedTuple):
    """Keys and values of a context: what cross-attention reads of it, whatever asks.

    Made by :meth:`numattn.MultiHeadAttention.project_context`.
    """

    k: Array
    """(B, Sk, Hkv, D) or (Sk, Hkv, D)"""
    v: Array
    """(B, Sk, Hkv, Dv) or (Sk, Hkv, Dv)"""

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


class Packed(NamedTuple):
    """Some of the three projections, side by side in one layer."""

    names: str
    """A part of "qkv"."""
    linear: Linear


class Heads:
    """The projections into queries, keys and values: their weights, checked and packed once.

    Those that read inputs of one width are packed side by side. One pass serves all that read the
    same input; where only some do, it runs over their part of the packed weights.

    Parameters
    ----------
    num_heads : int
    num_kv_heads : int or None
    weights, biases : dict
        wq, wk, wv and bq, bk, bv as for :class:`numattn.MultiHeadAttention`, under "q", "k", "v".
    dtype, precision
        As for :class:`numattn.MultiHeadAttention`.
    norms : tuple
        Its q_norm and k_norm.
    """

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int | None,
        weights: dict[str, ArrayLike],
        biases: dict[str, ArrayLike | None],
        dtype: DTypeLike | None,
        precision: Precision,
        norms: tuple[HeadNormLike, HeadNormLike] = (None, None),
    ) -> None:
        self.num_heads = bounded_integer("num_heads", num_heads)
        self.num_kv_heads = bounded_integer(
            "num_kv_heads", self.num_heads if num_kv_heads is None else num_kv_heads
        )
        self.storage = storage_name(dtype)
        # What queries, keys and values are projected into; None for x's dtype.
        self._dtype = as_dtype(self.storage, STORED) if self.storage == "bfloat16" else None
        matrices = {name: as_weight(f"w{name}", weight) for name, weight in weights.items()}
        self._check_heads(matrices)
        vectors = {name: as_bias(f"b{name}", bias, matrices[name]) for name, bias in biases.items()}
        self._shapes = {name: matrix.shape for name, matrix in matrices.items()}
        self.head_dim = self._shapes["q"][0] // self.num_heads
        self.value_dim = self._shapes["v"][0] // self.num_kv_heads
        self.q_norm = as_head_norm("q_norm", norms[0], self.head_dim)
        self.k_norm = as_head_norm("k_norm", norms[1], self.head_dim)
        self._packed = [
            Packed(names, side_by_side(names, matrices, vectors, self.storage, precision))
            for names in self._runs_of_one_width()
        ]

    def _check_heads(self, weights: dict[str, Array]) -> None:
        if self.num_heads < 1 or self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a positive multiple of num_kv_heads, "
                f"not {self.num_heads} and {self.num_kv_heads}"
            )
        heads = {"q": self.num_heads, "k": self.num_kv_heads, "v": self.num_kv_heads}
        dims = {}
        for name, weight in weights.items():
            dims[name], rest = divmod(weight.shape[0], heads[name])
            if rest or not dims[name]:
                raise ValueError(
                    f"w{name} of shape {weight.shape} does not divide into {heads[name]} heads"
                )
        if dims["q"] != dims["k"]:
            raise ValueError(
                f"wq and wk must give heads of one size, not {dims['q']} and {dims['k']}"
            )

    def _runs_of_one_width(self) -> list[str]:
        """The names in order, in pieces whose weights have as many columns each."""
        runs = [""]
        for name in "qkv":
            if runs[-1] and self._shapes[name][1] != self._shapes[runs[-1][-1]][1]:
                runs.append("")
            runs[-1] += name
        return runs

    def of_self(
        self, x: Array, values_from: Array | None, num_threads: int | None
    ) -> tuple[Array, Array]:
        """Queries and then keys (..., S, Hq + Hkv, D) of x, and values of it or of another."""
        if values_from is None:
            joined = self._pass("qkv", x, num_threads)
            values = joined.shape[-1] - self._shapes["v"][0]
            both, v = joined[..., :values], joined[..., values:]
        else:
            both = self._pass("qk", x, num_threads)
            v = self._pass("v", values_from, num_threads)
        heads = in_heads(both, self.num_heads + self.num_kv_heads)
        if self.q_norm is not None or self.k_norm is not None:
            heads = normalised(heads, self.num_heads, self.q_norm, self.k_norm, num_threads)
        return heads, in_heads(v, self.num_kv_heads)

    def queries(self, x: Array, num_threads: int | None) -> Array:
        """q of shape (..., Sq, Hq, D) for cross-attention."""
        q = in_heads(self._pass("q", x, num_threads), self.num_heads)
        return q if self.q_norm is None else self.q_norm(q, num_threads=num_threads)

    def context(
        self, context: Array, values_from: Array | None, num_threads: int | None
    ) -> ProjectedContext:
        """Keys of a context, and values of it or of another array."""
        if values_from is None:
            joined = self._pass("kv", context, num_threads)
            keys = self._shapes["k"][0]
            k, v = joined[..., :keys], joined[..., keys:]
        else:
            k = self._pass("k", context, num_threads)
            v = self._pass("v", values_from, num_threads)
        keys = in_heads(k, self.num_kv_heads)
        if self.k_norm is not None:
            keys = self.k_norm(keys, num_threads=num_threads)
        return ProjectedContext(keys, in_heads(v, self.num_kv_heads))

    def _pass(self, names: str, x: Array, num_threads: int | None) -> Array:
        """Project x by some of the weights at once: their results side by side."""
        for packed in self._packed:
            if names == packed.names:
                return applied(packed.linear, x, self._dtype, num_threads)
            if names in packed.names:
                begin = self._features(packed.names[: packed.names.index(names)])
                part, before = part_of(packed.linear, begin, begin + self._features(names))
                return applied(part, x, self._dtype, num_threads)[..., before:]
        raise self._no_one_input(names)

    def _features(self, names: str) -> int:
        return sum(self._shapes[name][0] for name in names)

    def _no_one_input(self, names: str) -> ValueError:
        """What to say where weights are to read the same input, and have different widths."""
        if self._shapes["k"][1] != self._shapes["v"][1] and "v" in names:
            needed, pair = "values_from must be given", "kv"
        else:
            needed, pair = "x cannot serve as context", "qk"
        shapes = " and ".join(str(self._shapes[name]) for name in pair)
        return ValueError(f"{needed}: w{pair[0]} and w{pair[1]} have shapes {shapes}")


def side_by_side(
    names: str,
    weights: dict[str, Array],
    biases: dict[str, Array | None],
    storage: str,
    precision: Precision,
) -> Linear:
    """One projection for several weights that read the same rows."""
    chosen = [weights[name] for name in names]
    if len({weight.dtype for weight in chosen}) > 1:
        chosen = [weight.astype(np.float32) for weight in chosen]
    bias = None
    if any(biases[name] is not None for name in names):
        parts = [(biases[name], len(weights[name])) for name in names]
        bias = np.concatenate(
            [np.zeros(size, np.float32) if given is None else given for given, size in parts]
        )
    weight = chosen[0] if len(chosen) == 1 else np.concatenate(chosen)
    return Linear(weight, bias, dtype=storage, precision=precision)


def applied(
    projection: Linear, x: Array, dtype: np.dtype[Any] | None, num_threads: int | None
) -> Array:
    """The projection of x as an array of that dtype, or of x's."""
    out = None
    if dtype is not None and dtype != x.dtype:
        out = empty((*x.shape[:-1], projection.out_features), dtype)
    return projection(x, out=out, num_threads=num_threads)


def as_weight(name: str, weight: ArrayLike) -> Array:
    """A matrix of a dtype that can be packed."""
    array = as_array(name, weight)
    check_floating(name, array)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix (out_features, in_features), not {array.shape}")
    return array


def as_bias(name: str, bias: ArrayLike | None, weight: Array) -> NDArray[np.float32] | None:
    """A float32 vector of one number for each row of its weight, or None."""
    if bias is None:
        return None
    vector = as_float_vector(name, bias)
    if vector.shape != weight.shape[:1]:
        raise ValueError(
            f"{name} must have shape ({weight.shape[0]},) like the rows of w{name[1:]}, "
            f"not {vector.shape}"
        )
    return vector


def in_heads(x: Array, heads: int) -> Array:
    """(..., S, H·D) as (..., S, H, D); the last axis is contiguous, so this is a view."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
