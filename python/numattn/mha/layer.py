"""Multi-head attention: project, attend, join the heads, project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike, DTypeLike

from numattn._arguments import as_array, flag, in_kind_of
from numattn._attention import attention, attention_weights
from numattn._names import Array, Precision
from numattn._score import ScoreOptions, require_known, spelled_out
from numattn.cache import Cache, CacheLayer
from numattn.linear import Linear, as_float_vector
from numattn.position import Rope

from .cache import continued, score_with_cache
from .head_norm import HeadNormLike
from .heads import Heads, ProjectedContext, applied, as_bias, as_weight
from .rope import checked_rope, turn_from
from .torch_state import arguments_of_torch

if TYPE_CHECKING:
    from typing_extensions import Unpack


class MultiHeadAttention:
    """``y = concat_h(attention(x·Wqᵀ, c·Wkᵀ, u·Wvᵀ)_h) · Woᵀ``, c and u of ``context`` or x.

    Queries, keys and values of self-attention are projected in one pass over x, and attention
    reads them where the projection left them: no head is ever copied.

    Parameters
    ----------
    num_heads : int
        Hq.
    wq, wk, wv : arrays of shape (Hq·D, E), (Hkv·D, Ec) and (Hkv·Dv, Eu)
        float32, float16 or bfloat16; not kept. Eu differs from Ec only where values are always made
        of an input of their own (``values_from`` in calls).
    wo : array of shape (Eo, Hq·Dv)
    bq, bk, bv, bo : arrays of shape (rows of the weight,), optional
    num_kv_heads : int, optional
        Hkv; ``num_heads`` by default.
    rope : numattn.position.Rope, optional
        Turns queries and keys of self-attention in place, by their positions: key j by j, query i
        by ``q_offset + i``, with a cache by how many tokens their row had before.
    q_norm, k_norm : HeadNorm, "rms", "l2", or array of shape (D,), optional
        Normalise each head of queries, or of keys, before positions turn it; an array is the weight
        of "rms" (:class:`numattn.HeadNorm`).
    sinks : array of shape (Hq,), optional
        The sinks of calls that give none: for each head a further logit that gives no value.
    batch_first : bool
        Whether x, a context and the result are (B, S, E); otherwise (S, B, E).
    dtype : {None, float32, bfloat16, int8, "w8a8"}
        How the weights are stored, as for :class:`numattn.Linear`: float32 by default. With
        bfloat16 (``"bfloat16"`` or ``ml_dtypes.bfloat16``), queries, keys, values and the joined
        heads are bfloat16 arrays, whatever x is; the result has x's dtype.
    precision : {"highest", "high"}
        As for :class:`numattn.Linear` and :func:`numattn.attention`.

    Raises
    ------
    TypeError
        A weight or a bias has a dtype that is not supported, or ``rope`` is no Rope.
    ImportError
        ``dtype`` is bfloat16 by name, and the package ml_dtypes is not installed.
    ValueError
        The weights do not fit one another or the heads, ``rope`` turns more elements than a head
        has, a norm is none or its weight does not fit a head, ``dtype`` is no storage type or
        ``precision`` is unknown.

    Notes
    -----
    Vaswani et al., "Attention Is All You Need" (2017), section 3.2.2; grouped key heads as in
    Ainslie et al., "GQA" (2023).

    Where the frequencies of ``rope`` depend on the length of the sequence, that is the length of
    x, or the last position of a query and one; with a cache, how many tokens each row has by then.

    Modules can be pickled and copied like :class:`numattn.Linear`.

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
        q_norm: HeadNormLike = None,
        k_norm: HeadNormLike = None,
        sinks: ArrayLike | None = None,
        batch_first: bool = True,
        dtype: DTypeLike | None = None,
        precision: Precision = "highest",
    ) -> None:
        self._heads = Heads(
            num_heads, num_kv_heads, {"q": wq, "k": wk, "v": wv},
            {"q": bq, "k": bk, "v": bv}, dtype, precision, (q_norm, k_norm),
        )  # fmt: skip
        self.num_heads: int = self._heads.num_heads
        self.num_kv_heads: int = self._heads.num_kv_heads
        self.rope = checked_rope(rope, self._heads.head_dim)
        self.batch_first: bool = bool(batch_first)
        self.sinks = None if sinks is None else as_float_vector("sinks", sinks).copy()
        if self.sinks is not None and self.sinks.shape != (self.num_heads,):
            raise ValueError(f"sinks must have shape ({self.num_heads},), not {self.sinks.shape}")
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
        state_dict_like: Any,
        num_heads: int | None = None,
        prefix: str = "",
        *,
        batch_first: bool | None = None,
        add_zero_attn: bool | None = None,
        dtype: DTypeLike | None = None,
        precision: Precision = "highest",
    ) -> MultiHeadAttention:
        """Take a ``torch.nn.MultiheadAttention``, or the weights of one.

        Parameters
        ----------
        state_dict_like : torch.nn.MultiheadAttention, or mapping of str to array or CPU tensor
            The module itself, which also says how it is called; what it drops out in training is
            kept, as in evaluation. Or its ``state_dict()``: ``in_proj_weight`` or
            ``q_proj_weight``, ``k_proj_weight`` and ``v_proj_weight``; ``out_proj.weight``; with
            biases also ``in_proj_bias`` and ``out_proj.bias``.
        num_heads : int
            Needed with a state.
        prefix : str
            Stands before each name of a state, its dot included. Names that begin otherwise are
            not looked at.
        batch_first : bool, optional
            As for the class. By default the module's own; True with a state, which does not tell.
        add_zero_attn : bool, optional
            Whether the module appends a key and a value of zeros. By default what the module says;
            False with a state, which does not tell. Probabilities then are of the other keys alone,
            and sum to less than 1.
        dtype, precision
            As for the class itself.

        Raises
        ------
        TypeError
            As for the class itself; what is given is neither a module nor a state, or a state
            without ``num_heads``.
        ValueError
            As for the class itself; a weight is missing, the state has a name that no such module
            has, the module appends learned keys (``add_bias_kv``), or contradicts what is given.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> state = {"in_proj_weight": np.ones((6, 2), np.float32),
        ...          "out_proj.weight": np.ones((2, 2), np.float32)}
        >>> na.MultiHeadAttention.from_torch(state, 1)(np.ones((3, 2), np.float32)).shape
        (3, 2)
        """
        arguments = arguments_of_torch(
            state_dict_like, num_heads, prefix, batch_first, add_zero_attn
        )
        return cls(**arguments, dtype=dtype, precision=precision)

    def project_context(
        self,
        context: ArrayLike,
        *,
        values_from: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> ProjectedContext:
        """Keys and values of a context, for calls that attend to it again and again.

        Parameters
        ----------
        context : array of shape (B, Sk, Ec) or (Sk, Ec)
        values_from : array of shape (B, Sk, Eu) or (Sk, Eu), optional
            What values are made of; the context by default.
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
        rows = self._rows("context", context)
        return self._heads.context(rows, self._values_from(values_from, rows), num_threads)

    @spelled_out(ScoreOptions)
    def __call__(
        self,
        x: ArrayLike,
        context: ArrayLike | ProjectedContext | None = None,
        *,
        values_from: ArrayLike | None = None,
        cache: Cache | CacheLayer | None = None,
        num_threads: int | None = None,
        return_weights: bool = False,
        **score: Unpack[ScoreOptions],
    ) -> Any:
        """Attend from x to itself, to ``context``, or to what a cache has and itself.

        Parameters
        ----------
        x : array of shape (B, Sq, E) or (Sq, E)
            Without B, one row. What queries are made of, and keys and values without a context.
        context : array of shape (B, Sk, Ec) or (Sk, Ec), or what project_context returns, optional
            What keys and values are made of.
        values_from : array of shape (B, Sk, Eu) or (Sk, Eu), optional
            What values are made of, where it is not what keys are: with ``x + position`` for
            queries and keys, as in DETR, ``mha(x + position, values_from=x)``.
        cache : a layer of a KVCache or PagedKVCache, optional
            ``cache.layer(i)``, or a cache that has one layer. x continues its rows: keys and values
            of x are appended, and attention is causal over all of them, whatever ``is_causal`` is.
            The window is the layer's own by default. ``precision`` then concerns projections alone.
        num_threads : int, optional
            Upper limit for this call.
        return_weights : bool
            Also return the probabilities of every head.
        **score
            As for :func:`numattn.attention`. Sinks are the module's own by default.

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
            ``mask``, ``bias``, ``q_offset``, ``kv_lens`` and ``return_weights`` is given; with
            ``rope``, ``context`` is; or with a projected context, ``values_from`` is.
        MemoryError
            Memory cannot be had, or no page of the cache. The cache is as it was after any error.
        """
        require_known("MultiHeadAttention.__call__", score, ScoreOptions)
        weights = flag("return_weights", return_weights)
        rows = self._rows("x", x)
        if score.get("sinks") is None and self.sinks is not None:
            score["sinks"] = self.sinks
        if cache is not None:
            joined = continued(
                cache, self._heads, self.rope, rows, self._values_from(values_from, rows),
                score_with_cache(score, context, weights), num_threads,
                lambda o: self._join(o, rows, num_threads),
            )  # fmt: skip
            return in_kind_of(x, joined)
        first = score.get("q_offset", 0)
        q, k, v = self._project(rows, context, values_from, first, num_threads)
        o = attention(
            q, k, v, layout="bshd", precision=self._precision, num_threads=num_threads, **score
        )
        y = self._join(o, rows, num_threads)
        if not weights:
            return in_kind_of(x, y)
        shares = attention_weights(q, k, layout="bshd", num_threads=num_threads, **score)
        return in_kind_of(x, (y, shares))

    def _project(
        self,
        x: Array,
        context: ArrayLike | ProjectedContext | None,
        values_from: ArrayLike | None,
        q_offset: ArrayLike,
        num_threads: int | None,
    ) -> tuple[Array, Array, Array]:
        """q, k, v of shape (..., S, H, D): views of the projections' results, turned."""
        if context is None:
            both, v = self._heads.of_self(x, self._values_from(values_from, x), num_threads)
            if self.rope is not None:
                turn_from(self.rope, both, self.num_heads, q_offset, num_threads)
            return both[..., : self.num_heads, :], both[..., self.num_heads :, :], v
        if self.rope is not None:
            raise ValueError("context must be None: rope turns by positions in one sequence")
        if not isinstance(context, ProjectedContext):
            context = self.project_context(
                context, values_from=values_from, num_threads=num_threads
            )
        elif values_from is not None:
            raise ValueError(
                "values_from must be None: the context is projected, and its values are made"
            )
        return self._heads.queries(x, num_threads), context.k, context.v

    def _rows(self, name: str, x: ArrayLike) -> Array:
        """An input as (B, S, E) or (S, E)."""
        array = as_array(name, x)
        if array.ndim not in (2, 3):
            axes = "(B, S, E)" if self.batch_first else "(S, B, E)"
            raise ValueError(f"{name} must have shape {axes} or (S, E), not {array.shape}")
        return array if self.batch_first or array.ndim == 2 else array.swapaxes(0, 1)

    def _values_from(self, values_from: ArrayLike | None, keys_from: Array) -> Array | None:
        """What values are made of if not of the same rows as keys: one row for each of these."""
        if values_from is None:
            return None
        rows = self._rows("values_from", values_from)
        if rows.shape[:-1] != keys_from.shape[:-1]:
            raise ValueError(
                f"values_from must have rows {keys_from.shape[:-1]} like what keys are made of, "
                f"not {rows.shape[:-1]}"
            )
        return rows

    def _join(self, o: Array, x: Array, num_threads: int | None) -> Array:
        """The output projection of heads (..., S, Hq, Dv), with the axes and the dtype of x."""
        heads = o.reshape(*x.shape[:-1], self._output.in_features)
        y = applied(self._output, heads, x.dtype, num_threads)
        return y if self.batch_first or y.ndim == 2 else y.swapaxes(0, 1)
