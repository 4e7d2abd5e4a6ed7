"""Multi-head attention: project, attend, join the heads, project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn._arguments import as_array, integer_array
from numattn._names import Precision
from numattn._score import Window
from numattn.attention import attention, attention_weights
from numattn.cache import Cache, CacheLayer
from numattn.heads import Heads, ProjectedContext, applied
from numattn.linear import Linear
from numattn.position import Relative, Rope
from numattn.rope import apply_rope
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
        A weight has a dtype that is not supported, or ``rope`` is no Rope.
    ImportError
        ``dtype`` is bfloat16 by name, and the package ml_dtypes is not installed.
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
            num_heads, num_kv_heads, {"wq": wq, "wk": wk, "wv": wv},
            {"wq": bq, "wk": bk, "wv": bv}, dtype, precision,
        )  # fmt: skip
        self.num_heads: int = self._heads.num_heads
        self.num_kv_heads: int = self._heads.num_kv_heads
        self.rope = _checked_rope(rope, self._heads.head_dim)
        self._precision: Precision = precision
        self._output = Linear(wo, bo, dtype=self._heads.storage, precision=precision)
        joined = self._heads.value_dim * self.num_heads
        if self._output.in_features != joined:
            raise ValueError(
                f"wo must have {joined} columns, one per value element of all heads, "
                f"not {self._output.in_features}"
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
        return self._heads.context(_rows("context", context), num_threads)

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
            _refuse_with_cache(context, mask, bias, q_offset, kv_lens, return_weights)
            return self._continue(cache, rows, score)
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
            both, v = self._heads.of_self(x, num_threads)
            if self.rope is not None:
                self._turn(both, q_offset, num_threads)
            return both[..., : self.num_heads, :], both[..., self.num_heads :, :], v
        if self.rope is not None:
            raise ValueError("context must be None: rope turns by positions in one sequence")
        if not isinstance(context, ProjectedContext):
            context = self._heads.context(_rows("context", context), num_threads)
        return self._heads.queries(x, num_threads), context.k, context.v

    def _turn(self, both: Array, q_offset: ArrayLike, num_threads: int | None) -> None:
        """Turn query i by q_offset + i and key j by j, in place."""
        assert self.rope is not None
        keys = np.arange(both.shape[-3])
        first = integer_array("q_offset", q_offset, scalar=True)
        if first.size == 1:
            first = first.reshape(())
        elif first.shape != both.shape[:-3]:
            raise ValueError(
                f"q_offset must be one number, or one for each row, not of shape {first.shape}"
            )
        queries = first[..., np.newaxis] + keys
        length = max(int(queries.max(initial=0)) + 1, len(keys), 1)
        if not first.any():
            _turn_heads(self.rope, both, keys, length, num_threads)
            return
        _turn_heads(self.rope, both[..., : self.num_heads, :], queries, length, num_threads)
        _turn_heads(self.rope, both[..., self.num_heads :, :], keys, length, num_threads)

    def _continue(self, cache: Cache | CacheLayer, x: Array, score: dict[str, Any]) -> Array:
        """Append x to a layer of a cache and attend causally to all that it has."""
        num_threads = score["num_threads"]
        rows = x if x.ndim == 3 else x[np.newaxis]
        layer = self._fitting(cache, len(rows))
        both, v = self._heads.of_self(rows, num_threads)
        if v.dtype != layer.cache.dtype:
            raise TypeError(
                f"keys and values of this call are {v.dtype}, but the cache holds "
                f"{layer.cache.dtype}: make the cache with dtype={v.dtype.name!r}"
            )
        before = layer.lengths
        if self.rope is not None:
            positions = before[:, np.newaxis] + np.arange(rows.shape[1])
            lengths = np.maximum(before + rows.shape[1], 1)
            _turn_heads(self.rope, both, positions, lengths, num_threads)
        q, k = both[..., : self.num_heads, :], both[..., self.num_heads :, :]
        o = layer.attend(q, k, v, **score)
        try:
            return self._join(o, x, num_threads)
        except BaseException:
            layer.forget(before)
            raise

    def _fitting(self, cache: Cache | CacheLayer, batch: int) -> CacheLayer:
        """The layer meant, or an error if it is not made for these heads and rows."""
        if isinstance(cache, Cache):
            if cache.layers != 1:
                raise ValueError(f"cache has {cache.layers} layers: give one, cache.layer(i)")
            cache = cache.layer(0)
        if not isinstance(cache, CacheLayer):
            raise TypeError(
                f"cache must be a layer of a KVCache or PagedKVCache, not {type(cache).__name__}"
            )
        wanted = {
            "batch": batch, "kv_heads": self.num_kv_heads, "head_dim": self._heads.head_dim,
            "value_dim": self._heads.value_dim,
        }  # fmt: skip
        for name, size in wanted.items():
            if getattr(cache.cache, name) != size:
                raise ValueError(
                    f"cache has {name} {getattr(cache.cache, name)}, and this call {size}"
                )
        return cache

    def _join(self, o: Array, x: Array, num_threads: int | None) -> Array:
        """The output projection of heads (..., S, Hq, Dv), in the shape and dtype of x."""
        heads = o.reshape(*x.shape[:-1], self._output.in_features)
        return applied(self._output, heads, x.dtype, num_threads)


def _checked_rope(rope: Rope | None, head_dim: int) -> Rope | None:
    if rope is None:
        return None
    if not isinstance(rope, Rope):
        raise TypeError(f"rope must be a numattn.position.Rope, not {type(rope).__name__}")
    if rope.dim > head_dim:
        raise ValueError(f"rope turns {rope.dim} elements, but heads have {head_dim}")
    return rope


def _turn_heads(
    rope: Rope, heads: Array, positions: Array, length: ArrayLike, num_threads: int | None
) -> None:
    """Turn heads (..., S, H, D) by positions (S,) or (B, S), in place."""
    cos, sin = rope.tables(positions, length=length)
    apply_rope(
        heads, cos, sin, interleaved=rope.interleaved, layout="bshd", out=heads,
        num_threads=num_threads,
    )  # fmt: skip


def _refuse_with_cache(
    context: object, mask: object, bias: object, q_offset: ArrayLike, kv_lens: object, weights: bool
) -> None:
    """Raise ValueError for what attention over a cache does not take."""
    given = {
        "context": context is not None, "mask": mask is not None, "bias": bias is not None,
        "q_offset": not (isinstance(q_offset, int) and q_offset == 0),
        "kv_lens": kv_lens is not None, "return_weights": weights,
    }  # fmt: skip
    refused = [name for name, is_given in given.items() if is_given]
    if refused:
        raise ValueError(
            f"{refused[0]} cannot be given with a cache: x continues what the cache holds, "
            "causally, and each query sees all keys up to its own"
        )


def _rows(name: str, x: ArrayLike) -> Array:
    array = as_array(name, x)
    if array.ndim not in (2, 3):
        raise ValueError(f"{name} must have shape (B, S, E) or (S, E), not {array.shape}")
    return array
