"""Multi-head attention: project, attend, join the heads, project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._arguments import Window, bounded_integer
from numattn.attention import Precision, attention, attention_weights
from numattn.linear import Linear, storage_name
from numattn.plan import _dtype

Array = NDArray[Any]


class MultiHeadAttention:
    """``y = concat_h(attention(x·Wqᵀ, c·Wkᵀ, c·Wvᵀ)_h) · Woᵀ`` with ``c = context`` or x.

    Queries, keys and values of self-attention are projected in one pass over x, and attention
    reads them where the projection left them: no head is ever copied.

    Parameters
    ----------
    num_heads : int
        Hq.
    wq, wk, wv : arrays of shape (Hq·D, E), (Hkv·D, Ec) and (Hkv·Dv, Ec)
        float32, float16 or bfloat16.
    wo : array of shape (Eo, Hq·Dv)
    bq, bk, bv, bo : arrays of shape (rows of the weight,), optional
    num_kv_heads : int, optional
        Hkv; ``num_heads`` by default.
    rope : None
        Rotary positions are refused.
    dtype : {None, float32, bfloat16}
        How the weights are stored: float32 by default. With bfloat16 (``"bfloat16"`` or
        ``ml_dtypes.bfloat16``), queries, keys, values and the joined heads are bfloat16 arrays,
        whatever x is; the result has x's dtype.
    precision : {"highest", "high"}
        As for :class:`numattn.Linear` and :func:`numattn.attention`.

    Raises
    ------
    TypeError
        A weight has a dtype that is not supported, or ``dtype`` is bfloat16 and the package
        ml_dtypes is not installed.
    ValueError
        The weights do not fit one another or the heads, ``dtype`` is no storage type or
        ``precision`` is unknown.

    Notes
    -----
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2; grouped key heads as in
    Ainslie et al., "GQA" (2023).

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> rng = np.random.default_rng(0)
    >>> wq, wk, wv, wo = rng.standard_normal((4, 64, 64), np.float32) / 8
    >>> mha = na.MultiHeadAttention(4, wq, wk, wv, wo)
    >>> mha(rng.standard_normal((2, 10, 64), np.float32), is_causal=True).shape
    (2, 10, 64)
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
        rope: None = None,
        dtype: DTypeLike | None = None,
        precision: Precision = "highest",
    ) -> None:
        if rope is not None:
            raise ValueError("rope must be None: rotary positions are not available here")
        self.num_heads = bounded_integer("num_heads", num_heads)
        self.num_kv_heads = bounded_integer(
            "num_kv_heads", self.num_heads if num_kv_heads is None else num_kv_heads
        )
        self._weights = {
            "wq": _matrix("wq", wq), "wk": _matrix("wk", wk), "wv": _matrix("wv", wv)
        }  # fmt: skip
        self._biases = {"wq": bq, "wk": bk, "wv": bv}
        self._check_heads()
        self._storage = storage_name(dtype)
        # What queries, keys and values are projected into; None for x's dtype.
        self._head_dtype = None if self._storage == "float32" else _dtype(self._storage)
        self._precision: Precision = precision
        self._output = Linear(wo, bo, dtype=self._storage, precision=precision)
        joined = self._weights["wv"].shape[0] // self.num_kv_heads * self.num_heads
        if self._output.in_features != joined:
            raise ValueError(
                f"wo must have {joined} columns, one per value element of all heads, "
                f"not {self._output.in_features}"
            )
        # Packed when first needed: most modules only ever serve one of the two kinds of call.
        self._self_projection: Linear | None = None
        self._cross_projections: tuple[Linear, Linear] | None = None

    def _check_heads(self) -> None:
        if self.num_heads < 1 or self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a positive multiple of num_kv_heads, "
                f"not {self.num_heads} and {self.num_kv_heads}"
            )
        heads = {"wq": self.num_heads, "wk": self.num_kv_heads, "wv": self.num_kv_heads}
        widths = {}
        for name, weight in self._weights.items():
            widths[name], rest = divmod(weight.shape[0], heads[name])
            if rest or not widths[name]:
                raise ValueError(
                    f"{name} of shape {weight.shape} does not divide into {heads[name]} heads"
                )
        for name, weight in self._weights.items():
            given = self._biases[name]
            if given is not None and np.shape(given) != weight.shape[:1]:
                raise ValueError(
                    f"{name.replace('w', 'b')} must have shape ({weight.shape[0]},) "
                    f"like the rows of {name}, not {np.shape(given)}"
                )
        if widths["wq"] != widths["wk"]:
            raise ValueError(
                f"wq and wk must give heads of one size, not {widths['wq']} and {widths['wk']}"
            )
        if self._weights["wk"].shape[1] != self._weights["wv"].shape[1]:
            raise ValueError(
                f"wk and wv must have the same number of columns, not shapes "
                f"{self._weights['wk'].shape} and {self._weights['wv'].shape}"
            )

    @classmethod
    def from_torch(
        cls,
        state_dict_like: Mapping[str, Any],
        num_heads: int,
        prefix: str = "",
        *,
        dtype: DTypeLike | None = None,
        precision: Precision = "highest",
    ) -> MultiHeadAttention:
        """Take the weights of a ``torch.nn.MultiheadAttention``.

        Parameters
        ----------
        state_dict_like : mapping of str to array or CPU tensor
            ``in_proj_weight`` or ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``;
            ``out_proj.weight``; with biases also ``in_proj_bias`` and ``out_proj.bias``.
        num_heads : int
        prefix : str
            Stands before each of these names, its dot included.
        dtype, precision
            As for the class itself.

        Raises
        ------
        TypeError
            As for the class itself.
        ValueError
            Likewise, or a weight is missing, or the module appends learned keys (``bias_k``,
            ``bias_v``).

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> state = {"in_proj_weight": np.ones((6, 2), np.float32),
        ...          "out_proj.weight": np.ones((2, 2), np.float32)}
        >>> na.MultiHeadAttention.from_torch(state, 1)(np.ones((3, 2), np.float32)).shape
        (3, 2)
        """
        state = {
            name.removeprefix(prefix): value
            for name, value in state_dict_like.items()
            if name.startswith(prefix)
        }

        def array(name: str) -> Array:
            if name not in state:
                raise ValueError(f"{prefix}{name} is missing from the state")
            value = state[name]
            return np.asarray(value.detach() if hasattr(value, "detach") else value)

        for learned in ("bias_k", "bias_v"):
            if state.get(learned) is not None:
                raise ValueError(f"{prefix}{learned} (add_bias_kv=True) is not supported")
        if state.get("in_proj_weight") is not None:
            wq, wk, wv = np.split(array("in_proj_weight"), 3)
        else:
            wq, wk, wv = (array(f"{name}_proj_weight") for name in "qkv")
        bq = bk = bv = bo = None
        if state.get("in_proj_bias") is not None:
            bq, bk, bv = np.split(array("in_proj_bias"), 3)
        if state.get("out_proj.bias") is not None:
            bo = array("out_proj.bias")
        return cls(
            num_heads, wq, wk, wv, array("out_proj.weight"), bq=bq, bk=bk, bv=bv, bo=bo,
            dtype=dtype, precision=precision,
        )  # fmt: skip

    def __call__(
        self,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        cache: None = None,
        mask: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        is_causal: bool = False,
        q_offset: ArrayLike = 0,
        window: Window = None,
        scale: float | None = None,
        softcap: float | None = None,
        kv_lens: ArrayLike | None = None,
        alibi_slopes: ArrayLike | None = None,
        sinks: ArrayLike | None = None,
        num_threads: int | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Attend from x to itself, or to ``context``.

        Parameters
        ----------
        x : array of shape (B, Sq, E) or (Sq, E)
        context : array of shape (B, Sk, Ec) or (Sk, Ec), optional
            What keys and values are made of.
        cache : None
            Caches are refused.
        mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks
            As for :func:`numattn.attention`.
        num_threads : int, optional
            Upper limit for this call.
        return_weights : bool
            Also return the probabilities of every head.

        Returns
        -------
        y : array of shape (B, Sq, Eo) or (Sq, Eo), x's dtype
        weights : float32 array of shape (B, Hq, Sq, Sk) or (Hq, Sq, Sk)
            With ``return_weights=True``.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As for :class:`numattn.Linear` and :func:`numattn.attention`.
        """
        if cache is not None:
            raise ValueError("cache must be None: caches are not available here")
        rows = _rows("x", x)
        source = None if context is None else _rows("context", context)
        q, k, v = self._project(rows, source, num_threads)
        score: dict[str, Any] = {
            "mask": mask, "bias": bias, "is_causal": is_causal, "q_offset": q_offset,
            "window": window, "scale": scale, "softcap": softcap, "kv_lens": kv_lens,
            "alibi_slopes": alibi_slopes, "sinks": sinks, "num_threads": num_threads,
            "layout": "bshd",
        }  # fmt: skip
        joined = attention(q, k, v, precision=self._precision, **score)
        heads = joined.reshape(*rows.shape[:-1], self._output.in_features)
        y = _applied(self._output, heads, rows.dtype, num_threads)
        return (y, attention_weights(q, k, **score)) if return_weights else y

    def _project(
        self, rows: Array, context: Array | None, num_threads: int | None
    ) -> tuple[Array, Array, Array]:
        """q, k, v of shape (..., S, H, D): views of the projections' results."""
        sizes = [weight.shape[0] for weight in self._weights.values()]
        if context is None:
            if self._self_projection is None:
                self._self_projection = self._packed("wq", "wk", "wv")
            joined = _applied(self._self_projection, rows, self._head_dtype, num_threads)
            q, k, v = np.split(joined, np.cumsum(sizes)[:2], axis=-1)
        else:
            if self._cross_projections is None:
                self._cross_projections = (self._packed("wq"), self._packed("wk", "wv"))
            query, key_value = self._cross_projections
            q = _applied(query, rows, self._head_dtype, num_threads)
            joined = _applied(key_value, context, self._head_dtype, num_threads)
            k, v = np.split(joined, sizes[1:2], axis=-1)
        return (
            _heads(q, self.num_heads),
            _heads(k, self.num_kv_heads),
            _heads(v, self.num_kv_heads),
        )

    def _packed(self, *names: str) -> Linear:
        """One projection for several weights that read the same rows."""
        weights = [self._weights[name] for name in names]
        columns = {weight.shape[1] for weight in weights}
        if len(columns) > 1:
            raise ValueError(
                f"x cannot serve as context: wq and wk have shapes "
                f"{self._weights['wq'].shape} and {self._weights['wk'].shape}"
            )
        biases = [self._biases[name] for name in names]
        bias = None
        if any(given is not None for given in biases):
            bias = np.concatenate(
                [
                    np.zeros(len(weight), np.float32) if given is None else np.asarray(given)
                    for weight, given in zip(weights, biases, strict=True)
                ]
            )
        return Linear(np.concatenate(weights), bias, dtype=self._storage, precision=self._precision)


def _applied(
    projection: Linear, x: Array, dtype: np.dtype[Any] | None, num_threads: int | None
) -> Array:
    """The projection of x as an array of that dtype, or of x's."""
    out = None
    if dtype is not None and dtype != x.dtype:
        out = np.empty((*x.shape[:-1], projection.out_features), dtype)
    return projection(x, out=out, num_threads=num_threads)


def _matrix(name: str, weight: ArrayLike) -> Array:
    array = np.asarray(weight)
    if array.ndim != 2:
        raise ValueError(f"{name} must be a matrix (out_features, in_features), not {array.shape}")
    return array


def _rows(name: str, x: ArrayLike) -> Array:
    array = np.asarray(x)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name} must have shape (B, S, E) or (S, E), not {array.shape}")
    return array


def _heads(x: Array, heads: int) -> Array:
    """(..., S, H·D) as (..., S, H, D); the last axis is contiguous, so this is a view."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
