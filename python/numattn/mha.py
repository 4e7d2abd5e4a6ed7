"""Multi-head attention: project, attend, join the heads, project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._arguments import Window
from numattn.attention import Precision, attention, attention_weights
from numattn.cache import Cache, CacheLayer
from numattn.heads import Heads, ProjectedContext, applied, as_bias, as_weight
from numattn.linear import Linear
from numattn.mha_cache import continued, refuse_with_cache
from numattn.mha_rope import checked_rope, turn_from
from numattn.position import Relative, Rope
from numattn.torch_state import weights_of_torch

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
    rope : numattn.position.Rope, optional
        Turns queries and keys of self-attention in place, by their positions: key j by j, query i
        by ``q_offset + i``, with a cache by how many tokens their row had before.
    dtype : {None, float32, bfloat16}
        How the weights are stored: float32 by default. With bfloat16 (``"bfloat16"`` or
        ``ml_dtypes.bfloat16``), queries, keys, values and the joined heads are bfloat16 arrays,
        whatever x is; the result has x's dtype.
    precision : {"highest", "high"}
        As for :class:`numattn.Linear` and :func:`numattn.attention`.

    Raises
    ------
    TypeError
        A weight has a dtype that is not supported, ``rope`` is no Rope, or ``dtype`` is bfloat16
        and the package ml_dtypes is not installed.
    ValueError
        The weights do not fit one another or the heads, ``rope`` turns more elements than a head
        has, ``dtype`` is no storage type or ``precision`` is unknown.

    Notes
    -----
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2; grouped key heads as in
    Ainslie et al., "GQA" (2023).

    Where the frequencies of ``rope`` depend on the length of the sequence, that is the length of
    x, or the last position of a query and one; with a cache, how many tokens each row has by then.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> rng = np.random.default_rng(0)
    >>> wq, wk, wv, wo = rng.standard_normal((4, 64, 64), np.float32) / 8
    >>> mha = na.MultiHeadAttention(4, wq, wk, wv, wo)
    >>> mha(rng.standard_normal((2, 10, 64), np.float32), is_causal=True).shape
    (2, 10, 64)

    A decoder's layer, token by token:

    >>> mha = na.MultiHeadAttention(4, wq, wk, wv, wo, rope=na.position.Rope(16))
    >>> cache = na.KVCache(layers=1, batch=2, kv_heads=4, head_dim=16)
    >>> for _ in range(3):
    ...     y = mha(rng.standard_normal((2, 1, 64), np.float32), cache=cache)
    >>> y.shape, cache.lengths
    ((2, 1, 64), array([3, 3]))
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
        dtype: DTypeLike | None = None,
        precision: Precision = "highest",
    ) -> None:
        self._heads = Heads(
            num_heads, num_kv_heads, {"q": wq, "k": wk, "v": wv},
            {"q": bq, "k": bk, "v": bv}, dtype, precision,
        )  # fmt: skip
        self.num_heads: int = self._heads.num_heads
        self.num_kv_heads: int = self._heads.num_kv_heads
        self.rope = checked_rope(rope, self._heads.head_dim)
        self._precision: Precision = precision
        output = as_weight("wo", wo)
        joined = self._heads.value_dim * self.num_heads
        if output.shape[1] != joined:
            raise ValueError(
                f"wo must have {joined} columns, one per value element of all heads, "
                f"not {output.shape[1]}"
            )
        self._output = Linear(
            output, as_bias("bo", bo, output), dtype=self._heads.storage, precision=precision
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
        weights = weights_of_torch(state_dict_like, prefix)
        return cls(num_heads, **weights, dtype=dtype, precision=precision)

    def project_context(
        self, context: ArrayLike, *, num_threads: int | None = None
    ) -> ProjectedContext:
        """Keys and values of a context, for calls that attend to it again and again.

        Parameters
        ----------
        context : array of shape (B, Sk, Ec) or (Sk, Ec)
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        ProjectedContext
            What calls of this module take in place of the context.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As for :class:`numattn.Linear`.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> one = np.eye(8, dtype=np.float32)
        >>> mha, x = na.MultiHeadAttention(2, one, one, one, one), np.ones((1, 3, 8), np.float32)
        >>> source = mha.project_context(np.ones((1, 5, 8), np.float32))
        >>> mha(x, source).shape
        (1, 3, 8)
        """
        return self._heads.context(_rows("context", context), None, num_threads)

    def __call__(
        self,
        x: ArrayLike,
        context: ArrayLike | ProjectedContext | None = None,
        *,
        cache: Cache | CacheLayer | None = None,
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
        relative: Relative | None = None,
        num_threads: int | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Attend from x to itself, to ``context``, or to what a cache has and itself.

        Parameters
        ----------
        x : array of shape (B, Sq, E) or (Sq, E)
            Without B, one row.
        context : array of shape (B, Sk, Ec) or (Sk, Ec), or what project_context returns, optional
            What keys and values are made of.
        cache : a layer of a KVCache or PagedKVCache, optional
            ``cache.layer(i)``, or a cache that has one layer. x continues its rows: keys and values
            of x are appended, and attention is causal over all of them, whatever ``is_causal`` is.
            The window is the layer's own by default. ``precision`` then concerns projections alone.
        mask, bias, is_causal, q_offset, window, scale, softcap, kv_lens, alibi_slopes, sinks
            As for :func:`numattn.attention`, like ``relative``.
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
        TypeError
            As for :class:`numattn.Linear` and :func:`numattn.attention`; or the cache holds another
            dtype than that of queries, keys and values here.
        ValueError
            Likewise; the cache is made for other heads or rows; with a cache, one of ``context``,
            ``mask``, ``bias``, ``q_offset``, ``kv_lens`` and ``return_weights`` is given; or with
            ``rope``, ``context`` is.
        MemoryError
            Memory cannot be had, or no page of the cache. The cache is as it was after any error.
        """
        rows = _rows("x", x)
        score: dict[str, Any] = {
            "window": window, "scale": scale, "softcap": softcap, "alibi_slopes": alibi_slopes,
            "sinks": sinks, "relative": relative, "num_threads": num_threads, "layout": "bshd",
        }  # fmt: skip
        if cache is not None:
            refuse_with_cache(context, mask, bias, q_offset, kv_lens, return_weights)
            return continued(
                cache, self._heads, self.rope, rows, None, score,
                lambda o: self._join(o, rows, num_threads),
            )  # fmt: skip
        q, k, v = self._project(rows, context, q_offset, num_threads)
        score |= {
            "mask": mask, "bias": bias, "is_causal": is_causal, "q_offset": q_offset,
            "kv_lens": kv_lens,
        }  # fmt: skip
        y = self._join(attention(q, k, v, precision=self._precision, **score), rows, num_threads)
        return (y, attention_weights(q, k, **score)) if return_weights else y

    def _project(
        self,
        x: Array,
        context: ArrayLike | ProjectedContext | None,
        q_offset: ArrayLike,
        num_threads: int | None,
    ) -> tuple[Array, Array, Array]:
        """q, k, v of shape (..., S, H, D): views of the projections' results, turned."""
        if context is None:
            both, v = self._heads.of_self(x, None, num_threads)
            if self.rope is not None:
                turn_from(self.rope, both, self.num_heads, q_offset, num_threads)
            return both[..., : self.num_heads, :], both[..., self.num_heads :, :], v
        if self.rope is not None:
            raise ValueError("context must be None: rope turns by positions in one sequence")
        if not isinstance(context, ProjectedContext):
            context = self._heads.context(_rows("context", context), None, num_threads)
        return self._heads.queries(x, num_threads), context.k, context.v

    def _join(self, o: Array, x: Array, num_threads: int | None) -> Array:
        """The output projection of heads (..., S, Hq, Dv), in the shape and dtype of x."""
        heads = o.reshape(*x.shape[:-1], self._output.in_features)
        return applied(self._output, heads, x.dtype, num_threads)


def _rows(name: str, x: ArrayLike) -> Array:
    array = np.asarray(x)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name} must have shape (B, S, E) or (S, E), not {array.shape}")
    return array
