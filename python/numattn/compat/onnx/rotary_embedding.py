"""The ONNX operator RotaryEmbedding, opset 23, on top of `numattn.apply_rope`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn.rope import apply_rope

Array = NDArray[Any]

DTYPES = ("float32", "float16", "bfloat16")


def rotary_embedding(
    X: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Array:
    """Compute the ONNX operator RotaryEmbedding; inputs and attributes have its names.

    Parameters
    ----------
    X : array (B, H, S, D) or (B, S, H·D)
        float32, float16 or bfloat16; arithmetic is float32.
    cos_cache, sin_cache : arrays (B, S, R), or (P, R) with `position_ids`
        Of X's dtype.
    position_ids : int array (B, S), optional
        Rows of the caches.
    interleaved : 0 or 1
        Whether pairs are neighbours; otherwise they lie R apart.
    num_heads : int, optional
        H; needed for an input of three dimensions.
    rotary_embedding_dim : int
        2R, the elements of a head that turn; 0 stands for all D.

    Returns
    -------
    Y : array of X's shape and dtype

    Raises
    ------
    TypeError
        If a dtype is none of the operator's, or a cache differs from X in dtype.
    ValueError
        If shapes do not fit one another, or a position is not in the caches.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[[1, 2, 3, 4]]], dtype=np.float32)
    >>> zero, one = np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    >>> rotary_embedding(X, zero, one, num_heads=2).tolist()
    [[[-2.0, 1.0, -4.0, 3.0]]]
    """
    for name, x in (("X", X), ("cos_cache", cos_cache), ("sin_cache", sin_cache)):
        if x.dtype.name not in DTYPES:
            raise TypeError(f"{name} must be of {', '.join(DTYPES)}, not {x.dtype}")
        if x.dtype != X.dtype:
            raise TypeError(f"{name} is {x.dtype}; it must be {X.dtype} as X")
    if interleaved not in (0, 1):
        raise ValueError(f"interleaved must be 0 or 1, not {interleaved}")
    heads = heads_of(X, num_heads)
    check_caches(cos_cache, sin_cache, rotary_embedding_dim or heads.shape[3])
    if position_ids is not None and position_ids.ndim != 2:
        raise ValueError(f"position_ids must have shape (B, S), not {position_ids.shape}")
    if position_ids is None and cos_cache.ndim != 3:
        raise ValueError(f"caches without position_ids must be (B, S, R), not {cos_cache.shape}")
    turned = apply_rope(
        heads,
        cos_cache,
        sin_cache,
        positions=position_ids,
        interleaved=bool(interleaved),
        layout="bhsd" if X.ndim == 4 else "bshd",
    )
    return turned.reshape(X.shape)


def heads_of(X: Array, num_heads: int | None) -> Array:
    """Return (B, S, H·D) as (B, S, H, D), a view where it can be, and (B, H, S, D) as it is."""
    if X.ndim == 4:
        if num_heads not in (None, 0, X.shape[1]):
            raise ValueError(f"num_heads is {num_heads}, but X {X.shape} has {X.shape[1]} heads")
        return X
    if X.ndim != 3:
        raise ValueError(f"X must have 3 or 4 dimensions, not shape {X.shape}")
    if num_heads is None:
        raise ValueError("num_heads is needed for an X of three dimensions")
    if num_heads < 1 or X.shape[2] % num_heads != 0:
        raise ValueError(
            f"num_heads is {num_heads}, which does not divide {X.shape[2]} of {X.shape}"
        )
    return np.reshape(X, (*X.shape[:2], num_heads, X.shape[2] // num_heads))


def check_caches(cos_cache: Array, sin_cache: Array, turning: int) -> None:
    """Raise ValueError unless the caches turn that many elements."""
    for name, cache in (("cos_cache", cos_cache), ("sin_cache", sin_cache)):
        if turning % 2 or cache.ndim < 1 or 2 * cache.shape[-1] != turning:
            raise ValueError(
                f"{name} {cache.shape} must have half as many columns as elements turn, {turning}"
            )
