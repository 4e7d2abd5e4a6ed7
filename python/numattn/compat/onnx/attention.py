"""The ONNX operator Attention, opsets 23 to 25, on top of `numattn.attention`.

The operator's words for ours (onnx/defs/nn, operator Attention):

    q_offset = past_sequence_length, or nonpad_kv_seqlen − q_sequence_length, or 0
    kv_lens  = nonpad_kv_seqlen        window = (left_window_size, right_window_size)
    mask     = boolean attn_mask       bias   = attn_mask of any other dtype

What a call means does not depend on the opset, since a function cannot know it: it is what opset 25
says, which is also what the text of 23 and 24 says since the errata of onnx 1.23. Two things are
read more widely than one of the opsets has them: `q_num_heads` and `kv_num_heads` may come with
inputs of four dimensions, as in 23 and 24, if they agree with the shapes; and a mask with fewer
columns than keys excludes the remaining keys, as in 24 and 25, where 23 can only broadcast a mask
of one column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import attention as attend
from numattn import attention_weights, reference

Array = NDArray[Any]
Output = tuple[Array, Array, Array, Array | None]

FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16  # onnx.TensorProto.DataType
DTYPES = ("float32", "float16", "bfloat16", "float64")
RAW, AFTER_SOFTCAP, WITH_BIAS, AFTER_SOFTMAX = range(4)  # qk_matmul_output_mode


def attention(
    Q: Array,
    K: Array,
    V: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int | None = None,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> Output:
    """Compute the ONNX operator Attention; inputs, attributes and outputs have its names.

    Parameters
    ----------
    Q : array (B, Hq, Sq, D) or (B, Sq, Hq·D)
        float32, float16, bfloat16 or float64, as are K and V. float64 is computed by
        `numattn.reference`: exact, and slow.
    K : array (B, Hkv, S, D) or (B, S, Hkv·D)
        Of Q's dtype.
    V : array (B, Hkv, S, Dv) or (B, S, Hkv·Dv)
        May differ from Q in dtype; then both are widened, which is exact.
    attn_mask : array broadcastable to (B, Hq, Sq, T), optional
        T = P + S. bool: True = may attend. Any other dtype: added to the scores. The last dimension
        may be shorter than T: the keys past it are excluded.
    past_key, past_value : arrays (B, Hkv, P, D) and (B, Hkv, P, Dv), optional
        Come before K and V; both or neither.
    nonpad_kv_seqlen : int array (B,), optional
        Number of valid keys; not together with `past_key`.
    is_causal : 0 or 1
        Row i attends key j iff j ≤ offset + i, where offset is P, or nonpad_kv_seqlen − Sq, or 0.
    kv_num_heads, q_num_heads : int, optional
        Hkv and Hq; needed for inputs of three dimensions.
    qk_matmul_output_mode : int, optional
        Asks for the fourth output: 0 the scaled scores, 1 after softcap, 2 with bias too and −inf
        where a key is excluded, 3 the probabilities. Where the operator's default is 0, None leaves
        the (B, Hq, Sq, T) array out.
    scale : float, optional
        Factor of q·kᵀ; 1/sqrt(D) by default.
    softcap : float
        c > 0: scores become c·tanh(s/c). 0: left as they are.
    softmax_precision : 1, 10, 11 or 16, optional
        Accepted and checked. The softmax is computed in float32 whatever it says (float64 for
        float64 inputs), which is no less precise than any value but 11 asks for.
    left_window_size, right_window_size : int
        Row i attends keys offset + i − left … offset + i + right; −1 is unbounded.

    Returns
    -------
    Y : array (B, Hq, Sq, Dv) or (B, Sq, Hq·Dv)
        Of Q's dtype. A row that may attend nothing is 0.
    present_key, present_value : arrays (B, Hkv, T, D) and (B, Hkv, T, Dv)
        Past and new keys and values joined; without a past, views of K and V.
    qk_matmul_output : array (B, Hq, Sq, T) of Q's dtype, or None

    Raises
    ------
    TypeError
        If a dtype is none of the operator's, or K or a past differs in dtype.
    ValueError
        If shapes do not fit one another, or an attribute or a combination is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> Q = K = np.zeros((1, 2, 4), dtype=np.float32)
    >>> V = np.array([[[1, 1], [3, 5]]], dtype=np.float32)
    >>> Y, *_ = attention(Q, K, V, is_causal=1, q_num_heads=2, kv_num_heads=2)
    >>> Y.tolist()
    [[[1.0, 1.0], [2.0, 3.0]]]
    """
    check_dtypes(Q, K, V, past_key, past_value)
    check_attributes(softcap, softmax_precision, qk_matmul_output_mode)
    if not Q.ndim == K.ndim == V.ndim:
        raise ValueError(f"Q {Q.shape}, K {K.shape} and V {V.shape} differ in dimensions")
    q = split_heads(Q, q_num_heads, "q_num_heads")
    k = split_heads(K, kv_num_heads, "kv_num_heads")
    v = split_heads(V, kv_num_heads, "kv_num_heads")
    present_key, present_value = join_past(k, v, past_key, past_value)

    length = present_key.shape[2]
    score: dict[str, Any] = {
        "scale": scale,
        "softcap": softcap if softcap > 0 else None,
        "is_causal": bool(is_causal),
        "window": window(left_window_size, right_window_size),
        "q_offset": length - k.shape[2],
    }
    if nonpad_kv_seqlen is not None:
        if past_key is not None:
            raise ValueError("nonpad_kv_seqlen cannot be combined with past_key and past_value")
        score["kv_lens"] = valid_lengths(nonpad_kv_seqlen, K.shape[0], length)
        score["q_offset"] = score["kv_lens"] - q.shape[2]
    dtype = compute_dtype(Q, V)
    q, k, v = (x.astype(dtype, copy=False) for x in (q, present_key, present_value))
    visible = length
    if attn_mask is not None:
        visible = mask_columns(attn_mask, score.get("kv_lens"), length)
        score |= mask_or_bias(attn_mask, dtype)

    y = attend_heads(q, k[:, :, :visible], v[:, :, :visible], score, joined=Q.ndim == 3)
    qk_matmul_output = None
    if qk_matmul_output_mode is not None:
        qk_matmul_output = qk_matmul(q, k, visible, score, qk_matmul_output_mode)
        qk_matmul_output = qk_matmul_output.astype(Q.dtype, copy=False)
    return y.astype(Q.dtype, copy=False), present_key, present_value, qk_matmul_output


def check_dtypes(
    Q: Array, K: Array, V: Array, past_key: Array | None, past_value: Array | None
) -> None:
    """Raise TypeError unless Q, K, past_key have one dtype of the operator's, and V, past_value."""
    for name, x, like in (
        ("Q", Q, Q),
        ("K", K, Q),
        ("V", V, V),
        ("past_key", past_key, K),
        ("past_value", past_value, V),
    ):
        if x is None:
            continue
        if x.dtype.name not in DTYPES:
            raise TypeError(f"{name} must be of {', '.join(DTYPES)}, not {x.dtype}")
        if x.dtype != like.dtype:
            raise TypeError(f"{name} is {x.dtype}; it must be {like.dtype} as what it goes with")


def check_attributes(softcap: float, softmax_precision: int | None, mode: int | None) -> None:
    """Raise ValueError for a value the operator does not know."""
    if not softcap >= 0:
        raise ValueError(f"softcap must be 0 (none) or positive, not {softcap}")
    if softmax_precision not in (None, FLOAT, FLOAT16, DOUBLE, BFLOAT16):
        raise ValueError(f"softmax_precision must be 1, 10, 11 or 16, not {softmax_precision}")
    if mode not in (None, RAW, AFTER_SOFTCAP, WITH_BIAS, AFTER_SOFTMAX):
        raise ValueError(f"qk_matmul_output_mode must be 0, 1, 2 or 3, not {mode}")


def window(left: int, right: int) -> tuple[int, int] | None:
    """Return `numattn.attention`'s window for the operator's two sizes."""
    if left < -1 or right < -1:
        raise ValueError(f"window sizes must be -1 or more, not left {left}, right {right}")
    return None if left == right == -1 else (left, right)


def split_heads(x: Array, heads: int | None, name: str) -> Array:
    """Return (B, S, H·D) or (B, H, S, D) as (B, H, S, D), a view."""
    if x.ndim == 4:
        if heads not in (None, x.shape[1]):
            raise ValueError(f"{name} is {heads}, but the input {x.shape} has {x.shape[1]} heads")
        return x
    if x.ndim != 3:
        raise ValueError(f"inputs must have 3 or 4 dimensions, not shape {x.shape}")
    if heads is None:
        raise ValueError(f"{name} is needed for inputs of three dimensions")
    if heads < 1 or x.shape[2] % heads != 0:
        raise ValueError(f"{name} is {heads}, which does not divide {x.shape[2]} of {x.shape}")
    batch, length, width = x.shape
    split: Array = x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)
    return split


def join_past(
    k: Array, v: Array, past_key: Array | None, past_value: Array | None
) -> tuple[Array, Array]:
    """Return present_key and present_value: past before new, along the keys."""
    if past_key is None and past_value is None:
        return k, v
    if past_key is None or past_value is None:
        raise ValueError("past_key and past_value must be given together")
    return np.concatenate((past_key, k), axis=2), np.concatenate((past_value, v), axis=2)


def valid_lengths(nonpad_kv_seqlen: Array, batch: int, length: int) -> Array:
    """Return nonpad_kv_seqlen as int64, checked to be (B,) and within 0 … length."""
    lengths = np.asarray(nonpad_kv_seqlen, dtype=np.int64)
    if lengths.shape != (batch,):
        raise ValueError(f"nonpad_kv_seqlen must have shape ({batch},), not {lengths.shape}")
    if np.any(lengths < 0) or np.any(lengths > length):
        raise ValueError(f"nonpad_kv_seqlen must lie in 0 … {length}, not {lengths.tolist()}")
    return lengths


def compute_dtype(Q: Array, V: Array) -> np.dtype[Any]:
    """Return the dtype to compute in: that of both, or the smallest of ours that holds both."""
    if Q.dtype == V.dtype:
        return Q.dtype
    wide = "float64" if "float64" in (Q.dtype.name, V.dtype.name) else "float32"
    return np.dtype(wide)


def mask_columns(attn_mask: Array, kv_lens: Array | None, length: int) -> int:
    """Return how many keys the mask speaks of; the others are excluded."""
    columns = attn_mask.shape[-1] if attn_mask.ndim > 0 else length
    if kv_lens is not None and columns < kv_lens.max(initial=0):
        raise ValueError(
            f"attn_mask {attn_mask.shape} has fewer columns than nonpad_kv_seqlen {kv_lens} keys"
        )
    return min(columns, length)


def mask_or_bias(attn_mask: Array, dtype: np.dtype[Any]) -> dict[str, Array]:
    """Return attn_mask as `numattn.attention` takes it: bool, or float32 or the inputs' dtype."""
    if attn_mask.dtype == np.bool_:
        return {"mask": attn_mask}
    if attn_mask.dtype == dtype:
        return {"bias": attn_mask}
    with np.errstate(over="ignore"):  # the lowest float64, a common way to say −inf, becomes −inf
        return {"bias": attn_mask.astype(np.float64 if dtype == np.float64 else np.float32)}


def attend_heads(q: Array, k: Array, v: Array, score: dict[str, Any], *, joined: bool) -> Array:
    """Return (B, Hq, Sq, Dv), or (B, Sq, Hq·Dv) if joined."""
    run = reference.attention if q.dtype == np.float64 else attend
    if not joined:
        y: Array = run(q, k, v, **score)
        return y
    y = run(*(x.swapaxes(1, 2) for x in (q, k, v)), **score, layout="bshd")
    return y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])


def qk_matmul(q: Array, k: Array, visible: int, score: dict[str, Any], mode: int) -> Array:
    """Return the operator's fourth output, (B, Hq, Sq, T), of which `visible` keys may be seen."""
    if mode == RAW:
        return reference.attention_scores(q, k, scale=score["scale"])
    if mode == AFTER_SOFTCAP:
        return reference.attention_scores(q, k, scale=score["scale"], softcap=score["softcap"])
    unseen = [(0, 0)] * 3 + [(0, k.shape[2] - visible)]
    if mode == WITH_BIAS:
        logits = reference.attention_scores(q, k[:, :, :visible], **score)
        return np.pad(logits, unseen, constant_values=-np.inf)
    weigh = reference.attention_weights if q.dtype == np.float64 else attention_weights
    return np.pad(weigh(q, k[:, :, :visible], **score), unseen)
