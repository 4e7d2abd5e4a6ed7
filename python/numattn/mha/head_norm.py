"""Normalisation of queries or keys, head by head, before positions turn them."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from numattn._aligned import empty
from numattn._arguments import as_array, in_kind_of, real
from numattn._names import Array, Float32Array
from numattn.linear import as_float_vector
from numattn.norm import rms_norm

Kind: TypeAlias = Literal["rms", "l2"]
EPSILONS = {"rms": 1e-6, "l2": 1e-12}


class HeadNorm:
    """What ``q_norm`` and ``k_norm`` of :class:`numattn.MultiHeadAttention` do to each head.

    ``"rms"``: ``x / sqrt(mean(x²) + eps) · weight``; ``"l2"``: ``x / sqrt(Σ x² + eps²) · weight``.

    Parameters
    ----------
    kind : {"rms", "l2"}
    weight : array of shape (D,), optional
        1 by default. Alike for all heads.
    eps : float, optional
        1e-6 for "rms", 1e-12 for "l2".

    Raises
    ------
    TypeError, ValueError
        The kind is unknown, the weight is no vector, or eps is not from 1.1e-19 to 1e19.

    Notes
    -----
    Henry et al., "Query-Key Normalization for Transformers" (2020): "l2"; Dehghani et al., "Scaling
    Vision Transformers to 22 Billion Parameters" (2023) and Qwen 3: "rms".

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> na.HeadNorm("l2")(np.array([[3, 4]], np.float32))
    array([[0.6, 0.8]], dtype=float32)
    """

    __slots__ = ("eps", "kind", "weight")

    def __init__(
        self, kind: Kind = "rms", weight: ArrayLike | None = None, *, eps: float | None = None
    ) -> None:
        if kind not in EPSILONS:
            raise ValueError(f"kind must be 'rms' or 'l2', not {kind!r}")
        self.kind: Kind = kind
        self.eps: float = EPSILONS[kind] if eps is None else real("eps", eps)
        if not (self.eps == 0 or 1.1e-19 <= self.eps <= 1e19):  # its square is float32's
            raise ValueError(f"eps must be 0 or from 1.1e-19 to 1e19, not {self.eps}")
        self.weight: Float32Array | None = None
        if weight is not None:
            self.weight = as_float_vector("weight", weight).copy()
            if self.weight.ndim != 1:
                raise ValueError(f"weight must have shape (D,), not {self.weight.shape}")

    def __repr__(self) -> str:
        weighted = "" if self.weight is None else f", weight of {len(self.weight)} elements"
        return f"HeadNorm({self.kind!r}{weighted}, eps={self.eps})"

    def __call__(self, x: ArrayLike, *, num_threads: int | None = None) -> Array:
        """Normalise the last axis of x.

        Parameters
        ----------
        x : array of shape (..., D)
            float32, float16 or bfloat16; arithmetic is float32.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        array of x's shape and dtype

        Raises
        ------
        TypeError, ValueError, MemoryError
            As for :func:`numattn.rms_norm`.
        """
        rows = as_array("x", x)
        width = rows.shape[-1] if rows.ndim else 0
        weight = np.ones(width, np.float32) if self.weight is None else self.weight
        if self.kind == "rms":
            y = rms_norm(rows, weight, eps=self.eps, num_threads=num_threads)
            return in_kind_of(x, y)
        # The root of a mean is that of the sum over √D.
        root = math.sqrt(max(width, 1))
        eps = self.eps**2 / max(width, 1)
        y = rms_norm(rows, weight / np.float32(root), eps=eps, num_threads=num_threads)
        return in_kind_of(x, y)


HeadNormLike: TypeAlias = HeadNorm | Kind | ArrayLike | None


def as_head_norm(name: str, value: HeadNormLike, head_dim: int) -> HeadNorm | None:
    """A norm for heads of that size: itself, by its kind, or "rms" with a weight; or None."""
    if value is None:
        return None
    if isinstance(value, HeadNorm):
        norm = value
    elif isinstance(value, str):
        if value not in EPSILONS:
            raise ValueError(f"{name} must be 'rms', 'l2', a HeadNorm or a weight, not {value!r}")
        norm = HeadNorm(value)  # type: ignore[arg-type]
    else:
        norm = HeadNorm("rms", as_float_vector(name, value))
    if norm.weight is not None and norm.weight.shape != (head_dim,):
        raise ValueError(f"{name} must have a weight ({head_dim},), not {norm.weight.shape}")
    return norm


def normalised(
    both: Array,
    num_heads: int,
    q_norm: HeadNorm | None,
    k_norm: HeadNorm | None,
    num_threads: int | None,
) -> Array:
    """Queries and then keys (..., S, Hq + Hkv, D) of memory of their own, normalised."""
    whole = empty(both.shape, both.dtype)
    parts = (slice(num_heads), slice(num_heads, None))
    for heads, norm in zip(parts, (q_norm, k_norm), strict=True):
        x = both[..., heads, :]
        whole[..., heads, :] = x if norm is None else norm(x, num_threads=num_threads)
    return whole
