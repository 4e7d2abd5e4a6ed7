"""Linformer: softmax attention over a few learned mixtures of the keys, and of the values.

o = softmax(scale · q · (E·k)ᵀ) · (F·v)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import as_array
from numattn._attention import attention
from numattn._dtypes import check_floating
from numattn._names import Array, Float32Array, Layout
from numattn.approx.operands import Operands, softmax_scale
from numattn.linear import Linear


def linformer(
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    e: ArrayLike,
    f: ArrayLike | None = None,
    *,
    scale: float | None = None,
    layout: Layout = "bhsd",
    num_threads: int | None = None,
) -> Array:
    """Attention to n mixtures of keys: ``softmax(scale · q (E k)ᵀ) (F v)``.

    Time O(S·n), memory O(S·D + n·S). The formula is computed as exactly as :func:`attention`
    computes its own; by how much it differs from attention over the keys themselves is a matter of
    E and F, which are trained with the model: with others the result means nothing.

    Parameters
    ----------
    q : array of shape (B, Hq, Sq, D)
        float32, float16 or bfloat16, any strides; arithmetic is float32.
    k, v : arrays of shape (B, Hkv, Sk, D) and (B, Hkv, Sk, Dv)
        q's dtype. Hq is a multiple of Hkv. Without B, three dimensions give three.
    e : array of shape (n, Sk) or (Hkv, n, Sk)
        Mixes keys; one for all heads or one for each. float32, float16 or bfloat16.
    f : array of shape (n, Sk) or (Hkv, n, Sk), optional
        Mixes values; e by default.
    scale : float, optional
        Default ``1 / sqrt(D)``.
    layout : {"bhsd", "bshd"}
        Order of the axes of q, k, v and the result.
    num_threads : int, optional
        Upper limit for this call.

    Returns
    -------
    array of shape (B, Hq, Sq, Dv)
        In the layout of q and in its dtype; bitwise the same for any number of threads.

    Raises
    ------
    TypeError
        A dtype is not supported, or q, k and v disagree.
    ValueError
        Shapes do not fit.
    MemoryError
        Memory cannot be had.

    Notes
    -----
    Wang et al., "Linformer: Self-Attention with Linear Complexity" (2020). It cannot be causal: a
    mixture has keys of all positions.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> x = np.eye(4, dtype=np.float32)[None]
    >>> mean = np.full((1, 4), 0.25, np.float32)
    >>> na.approx.linformer(x, x, x, mean)[0, 0]
    array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    operands = Operands.of(q, k, v, layout)
    factor = softmax_scale(scale, operands.q.shape[3])
    mixing = _mixtures("e", e, operands.k)
    keys = _mixed(mixing, operands.k, num_threads)
    values_mixing = mixing if f is None else _mixtures("f", f, operands.v)
    if values_mixing.shape[-2] != mixing.shape[-2]:
        raise ValueError(
            f"e of shape {mixing.shape} and f of shape {values_mixing.shape} must make as many "
            "mixtures"
        )
    values = _mixed(values_mixing, operands.v, num_threads)
    o = attention(operands.q, keys, values, scale=factor, num_threads=num_threads)
    return operands.result(o)


def _mixtures(name: str, value: ArrayLike, tokens: Array) -> Array:
    matrices = as_array(name, value)
    check_floating(name, matrices)
    _, heads, length, _ = tokens.shape
    one_for_all = matrices.ndim == 2 and matrices.shape[1] == length
    one_for_each = matrices.ndim == 3 and matrices.shape[::2] == (heads, length)
    if not (one_for_all or one_for_each) or matrices.shape[-2] == 0:
        raise ValueError(
            f"{name} must have shape (n, {length}) or ({heads}, n, {length}), not {matrices.shape}"
        )
    return matrices


def _mixed(mixing: Array, tokens: Float32Array, num_threads: int | None) -> Float32Array:
    """mixing · tokens as a view (B, Hkv, n, D), by projections of the tokens' columns."""
    columns = np.ascontiguousarray(tokens.swapaxes(2, 3))  # (B, Hkv, D, Sk)
    if columns.shape[3] == 0:
        return np.zeros((*tokens.shape[:2], mixing.shape[-2], tokens.shape[3]), np.float32)
    if mixing.ndim == 2:
        mixed: Float32Array = Linear(mixing)(columns, num_threads=num_threads).swapaxes(2, 3)
    else:
        each = [
            Linear(matrix)(columns[:, head], num_threads=num_threads)
            for head, matrix in enumerate(mixing)
        ]
        mixed = np.stack(each, axis=1).swapaxes(2, 3)
    return mixed
