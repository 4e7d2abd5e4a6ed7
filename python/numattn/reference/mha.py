"""Multi-head attention in float64: project, attend head by head, join, project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .attention import attention, attention_weights
from .linear import Linear
from .rope import Rope, apply_rope
from .score import check_keywords


class MultiHeadAttention:
    """Multi-head attention, as `numattn.MultiHeadAttention` promises it, in float64.

    y = concat_h(attention(x·Wqᵀ, c·Wkᵀ, u·Wvᵀ)_h)·Woᵀ, with c = context or x, u = values_from or
    c, biases added where given (Vaswani et al., 2017, section 3.2.2; grouped key heads as in
    Ainslie et al., 2023).

    Parameters
    ----------
    num_heads : int
        Hq.
    wq : array (Hq·D, E)
    wk : array (Hkv·D, Ec)
    wv : array (Hkv·Dv, Eu)
    wo : array (Eo, Hq·Dv)
    bq, bk, bv, bo : arrays of the rows of wq, wk, wv, wo, optional
    num_kv_heads : int, optional
        Hkv; num_heads by default.
    rope : Rope, optional
        Turns query i by q_offset + i and key j by j.
    q_norm, k_norm : "rms", "l2", array (D,), or object with kind, weight and eps, optional
        x / √(mean x² + eps)·weight, or x / √(Σ x² + eps²)·weight, for each head before it is
        turned.
    sinks : array (Hq,), optional
        The sinks of calls that give none.
    batch_first : bool
        Whether x, the context and y are (B, S, E); otherwise (S, B, E).
    dtype : None, float32, bfloat16 or int8
        What stores the weights, as in `Linear`; what lies between the products is never rounded.
    precision : "highest" or "high"
        Accepted so that calls can be compared; the reference always computes in float64.

    Raises
    ------
    ValueError
        If the weights do not divide into the heads, or the dtype or the precision is another one
        than these.

    Examples
    --------
    >>> one = [[1.0]]
    >>> MultiHeadAttention(1, one, one, one, one)([[2.0], [2.0]]).tolist()
    [[2.0], [2.0]]
    """

    def __init__(
        self,
        num_heads: int,
        wq: ArrayLike,
        wk: ArrayLike,
        wv: ArrayLike,
        wo: ArrayLike,
        *,
        bq: ArrayLike | None = None,
        bk: ArrayLike | None = None,
        bv: ArrayLike | None = None,
        bo: ArrayLike | None = None,
        num_kv_heads: int | None = None,
        rope: Rope | None = None,
        q_norm: Any = None,
        k_norm: Any = None,
        sinks: ArrayLike | None = None,
        batch_first: bool = True,
        dtype: DTypeLike | None = None,
        precision: str = "highest",
    ) -> None:
        self.rope = rope
        self.q_norm, self.k_norm = q_norm, k_norm
        self.sinks = sinks
        self.batch_first = batch_first
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.query, self.key, self.value, self.output = (
            Linear(weight, bias, dtype=dtype, precision=precision)
            for weight, bias in ((wq, bq), (wk, bk), (wv, bv), (wo, bo))
        )
        for name, layer, heads in (
            ("wq", self.query, self.num_heads),
            ("wk", self.key, self.num_kv_heads),
            ("wv", self.value, self.num_kv_heads),
        ):
            if layer.out_features % heads != 0:
                raise ValueError(f"{name} {layer.weight.shape} does not divide into {heads} heads")

    @classmethod
    def from_torch(
        cls,
        state_dict_like: Any,
        num_heads: int | None = None,
        prefix: str = "",
        *,
        batch_first: bool | None = None,
        add_zero_attn: bool | None = None,
        dtype: DTypeLike | None = None,
        precision: str = "highest",
    ) -> MultiHeadAttention:
        """Take a `torch.nn.MultiheadAttention`, or the weights of one.

        Parameters
        ----------
        state_dict_like : torch.nn.MultiheadAttention, or mapping of str to array or CPU tensor
            The module, or what its state_dict() returns: in_proj_weight (3E, E), or q_proj_weight,
            k_proj_weight and v_proj_weight; out_proj.weight; and, if the module has biases,
            in_proj_bias (3E,) and out_proj.bias.
        num_heads : int
            Needed with a state.
        prefix : str
            Stands before each of these names.
        batch_first, add_zero_attn : bool, optional
            By default the module's; True and False with a state. A key of zeros has the score 0 and
            gives no value: it is a sink of 0.
        dtype, precision
            As for the class itself.

        Raises
        ------
        KeyError
            If a weight is missing.
        ValueError
            If the module appends learned keys (bias_k and bias_v).
        """
        if not isinstance(state_dict_like, Mapping):
            module, state_dict_like = state_dict_like, state_dict_like.state_dict()
            num_heads = module.num_heads
            batch_first = module.batch_first if batch_first is None else batch_first
            add_zero_attn = module.add_zero_attn
        if num_heads is None:
            raise ValueError("num_heads must be given with a state")
        state = {
            name.removeprefix(prefix): np.asarray(
                value.double() if hasattr(value, "double") else value
            )
            for name, value in state_dict_like.items()
            if name.startswith(prefix)
        }
        if "bias_k" in state or "bias_v" in state:
            raise ValueError("bias_k and bias_v (add_bias_kv=True) are not supported")
        if "in_proj_weight" in state:
            wq, wk, wv = np.split(state["in_proj_weight"], 3)
        else:
            wq, wk, wv = (state[f"{name}_proj_weight"] for name in "qkv")
        bq = bk = bv = None
        if "in_proj_bias" in state:
            bq, bk, bv = np.split(state["in_proj_bias"], 3)
        bo = state.get("out_proj.bias")
        return cls(
            num_heads,
            wq,
            wk,
            wv,
            state["out_proj.weight"],
            bq=bq,
            bk=bk,
            bv=bv,
            bo=bo,
            sinks=np.zeros(num_heads) if add_zero_attn else None,
            batch_first=batch_first is not False,
            dtype=dtype,
            precision=precision,
        )

    def __call__(
        self,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        values_from: ArrayLike | None = None,
        cache: None = None,
        num_threads: int | None = None,
        return_weights: bool = False,
        **score: Any,
    ) -> Any:
        """Return y, or (y, weights).

        Parameters
        ----------
        x : array (B, Sq, E) or (Sq, E)
        context : array (B, Sk, Ec) or (Sk, Ec), optional
            What keys and values are made of: x by default.
        values_from : array (B, Sk, Eu) or (Sk, Eu), optional
            What values are made of: what keys are by default.
        cache : None
            A cache is not part of the reference.
        num_threads : int, optional
            Accepted so that calls can be compared; the reference ignores it.
        return_weights : bool
            Also return the probabilities of every head.
        **score
            As in `attention`.

        Returns
        -------
        y : float64 array (B, Sq, Eo) or (Sq, Eo)
        weights : float64 array (B, Hq, Sq, Sk) or (Hq, Sq, Sk)

        Raises
        ------
        ValueError
            If the shapes do not fit one another, cache is given, or context with rope.
        """
        check_keywords("MultiHeadAttention.__call__", score)
        if cache is not None:
            raise ValueError("the reference knows no cache")
        if self.rope is not None and context is not None:
            raise ValueError("rope turns by positions in one sequence, and context is another")
        source = x if context is None else context
        q = head_norm(self.heads(self.query, x, self.num_heads), self.q_norm)
        k = head_norm(self.heads(self.key, source, self.num_kv_heads), self.k_norm)
        v = self.heads(
            self.value, source if values_from is None else values_from, self.num_kv_heads
        )
        if self.rope is not None:
            keys = np.arange(k.shape[-3])
            queries = np.asarray(score.get("q_offset", 0))[..., np.newaxis] + keys
            length = max(queries.max(initial=0), keys.max(initial=0)) + 1
            q = self.turned(q, queries, length)
            k = self.turned(k, keys, length)
        if score.get("sinks") is None:
            score["sinks"] = self.sinks
        o = attention(q, k, v, layout="bshd", **score)
        y = self.output(o.reshape(*o.shape[:-2], -1))
        if not self.batch_first:
            y = y.swapaxes(0, -2)
        return (y, attention_weights(q, k, layout="bshd", **score)) if return_weights else y

    def heads(self, layer: Linear, x: ArrayLike, heads: int) -> NDArray[Any]:
        """Return the projection of x as (B, S, H, D) or (S, H, D)."""
        rows = np.asarray(x) if self.batch_first else np.asarray(x).swapaxes(0, -2)
        y = layer(rows)
        return y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads)

    def turned(self, x: NDArray[Any], positions: NDArray[Any], length: int) -> NDArray[Any]:
        """Return heads (..., S, H, D) turned by positions (S,) or (B, S)."""
        assert self.rope is not None
        cos, sin = self.rope.tables(positions, length=length)
        return apply_rope(x, cos, sin, interleaved=self.rope.interleaved, layout="bshd")


def head_norm(x: NDArray[Any], norm: Any) -> NDArray[Any]:
    """Return heads (..., D) normalised, or as they are without a norm."""
    if norm is None:
        return x
    if isinstance(norm, str):
        kind, weight, eps = norm, None, {"rms": 1e-6, "l2": 1e-12}[norm]
    elif hasattr(norm, "kind"):
        kind, weight, eps = norm.kind, norm.weight, norm.eps
    else:
        kind, weight, eps = "rms", norm, 1e-6
    squares = (x**2).mean(axis=-1, keepdims=True) + eps
    if kind == "l2":
        squares = (x**2).sum(axis=-1, keepdims=True) + eps**2
    factor = 1.0 if weight is None else np.asarray(weight).astype(np.float64)
    y: NDArray[Any] = x / np.sqrt(squares) * factor
    return y
