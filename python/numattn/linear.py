"""Projections with weights packed once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from numattn import _core
from numattn._arguments import as_array, as_output, in_kind_of, thread_count
from numattn._dtypes import check_floating, storage_name
from numattn._memory import require_apart
from numattn._names import Activation, Array, Output, Precision

FLOAT32 = np.dtype(np.float32)


def as_float_vector(name: str, value: ArrayLike) -> NDArray[np.float32]:
    """A contiguous float32 vector from one of float32, float16 or bfloat16."""
    array = as_array(name, value)
    if array.dtype is FLOAT32 and array.ndim == 1 and array.flags.c_contiguous:
        return array  # the usual case, told quickly
    check_floating(name, array)
    return np.ascontiguousarray(array, dtype=np.float32)


class Linear:
    """``y = activation(x · weightᵀ + bias) · factor + residual``, the weight packed when made.

    Parameters
    ----------
    weight : array of shape (out_features, in_features)
        float32, float16 or bfloat16, any strides; not kept.
    bias : array of shape (out_features,), optional
    dtype : {None, float32, bfloat16, int8, "w8a8"}
        How the packed weight is stored: float32 by default. bfloat16 (``"bfloat16"`` or
        ``ml_dtypes.bfloat16``) halves the memory and rounds each weight to 8 bits of significand.
        int8 quarters it: a row of the weight is integers up to 127 times one scale, so that no
        weight errs by more than 1/254 of the largest of its row. "w8a8" is the same, and rounds a
        row of x to 8 bits, too, where int8 takes 16: an instruction of VNNI and AMX multiplies
        twice as many. That is less exact, most so where a few numbers are far larger than others.
    precision : {"highest", "high"}
        "high" lets float32 weights and inputs each count as a sum of two bfloat16 numbers where a
        unit that multiplies those makes it faster (AMX): relative error up to 2e-5. Elsewhere, and
        with other storage than float32, it changes nothing.

    Attributes
    ----------
    in_features, out_features : int
    dtype : str
        "float32", "bfloat16", "int8" or "w8a8"; "groups8" or "groups4" of `from_integers`.

    Raises
    ------
    TypeError
        The weight or the bias has a dtype that is not supported.
    ValueError
        Shapes do not fit, ``dtype`` is no storage type or ``precision`` is unknown.

    Notes
    -----
    Sums are float32 in every case. With bfloat16 storage, x is rounded to bfloat16 before it is
    multiplied on an instruction set that multiplies bfloat16 (AVX512-BF16, AMX); elsewhere it
    enters as it is. An instruction set chosen after construction runs the same layer.

    With int8 storage a row of x becomes integers up to 32639 times one scale, which errs less than
    1/65278 of the row's largest number, and products are summed exactly, 512 at a time. With
    "w8a8" it becomes 256 integers between its least and its largest number, 0 among them, which
    errs up to 1/510 of what lies between, and up to 65,536 products are summed exactly. So the
    projection of a row, before the activation, has the same bits at every instruction set. A row of
    x that holds a NaN or an infinity gives NaN throughout, as does a feature whose weights hold
    one.

    A layer can be pickled, its weights as they are packed, which is the same at every instruction
    set; with protocol 5 they are handed out as buffers, without a copy. As a layer never changes,
    copies of it share its weights.

    Examples
    --------
    >>> import numpy as np
    >>> import numattn as na
    >>> double = na.Linear(2 * np.eye(3, dtype=np.float32))
    >>> double(np.array([[1, -2, 3]], np.float32), activation="relu")
    array([[2., 0., 6.]], dtype=float32)
    >>> na.Linear(np.array([[1 / 3]], np.float32), dtype="bfloat16")(np.ones((1, 1), np.float32))
    array([[0.33398438]], dtype=float32)
    >>> na.Linear(np.array([[1, 1 / 3]], np.float32), dtype="int8")(np.eye(2, dtype=np.float32))
    array([[1.        ],
           [0.33070868]], dtype=float32)
    """

    __slots__ = ("_packed", "dtype", "in_features", "out_features")

    def __init__(
        self,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        dtype: DTypeLike | None = None,
        precision: Precision = "highest",
    ) -> None:
        self.dtype: str = storage_name(dtype)
        if not isinstance(precision, str):
            raise ValueError(f"precision must be 'highest' or 'high', not {precision!r}")
        self._packed = _core.PackedLinear(
            as_array("weight", weight),
            None if bias is None else as_float_vector("bias", bias),
            self.dtype,
            precision,
        )
        self.in_features: int = self._packed.in_features
        self.out_features: int = self._packed.out_features

    @classmethod
    def from_integers(
        cls,
        integers: ArrayLike,
        scale: ArrayLike,
        minimum: ArrayLike | None = None,
        *,
        bias: ArrayLike | None = None,
    ) -> Linear:
        """Make a layer of a weight that is quantised already, in groups along its rows.

        ``weight[n][k] = integers[n][k] · scale[n][k // G] + minimum[n][k // G]``, in float32: a
        product and then a sum, each rounded. Nothing is rounded besides. x enters as float32.

        Parameters
        ----------
        integers : array of shape (out_features, in_features)
            int8; or uint8 with numbers of 4 bits, 0 … 15, which are kept two to a byte.
        scale : array of shape (out_features, in_features / G)
            float32, float16 or bfloat16, or lists of Python's numbers. G is a multiple of 16 for
            int8, of 32 for uint8.
        minimum : array of scale's shape, optional
            Zero by default; for uint8 alone.
        bias : array of shape (out_features,), optional

        Returns
        -------
        Linear
            Whose `dtype` is "groups8" (1.25 bytes to a number) or "groups4" (0.75 bytes).

        Raises
        ------
        TypeError
            A dtype is not supported.
        ValueError
            Shapes do not fit, integers of 4 bits are larger, or there is a minimum beside int8.

        Notes
        -----
        llama.cpp's Q8_0 and Q6_K are integers of 8 bits with scales for 32 and 16 numbers, Q4_0,
        Q4_1 and Q4_K integers of 4 bits with scales and minima for 32.

        Examples
        --------
        >>> import numpy as np
        >>> import numattn as na
        >>> integers = np.arange(32, dtype=np.uint8)[np.newaxis] % 16
        >>> linear = na.Linear.from_integers(integers, [[0.5]], [[-2.0]])
        >>> linear
        Linear(in_features=32, out_features=1, dtype=groups4)
        >>> linear(np.eye(32, dtype=np.float32)[:4])[:, 0]
        array([-2. , -1.5, -1. , -0.5], dtype=float32)
        """
        from numattn._groups import packed_groups  # few have use of it

        numbers = as_array("integers", integers)
        scales = _as_scale("scale", scale)
        least = None if minimum is None else _as_scale("minimum", minimum)
        offset = None if bias is None else as_float_vector("bias", bias)
        linear = cls.__new__(cls)
        linear.dtype, panels = packed_groups(numbers, scales, least)
        linear.out_features, linear.in_features = numbers.shape
        if offset is not None and offset.shape != (linear.out_features,):
            raise ValueError(f"bias must have shape ({linear.out_features},), not {offset.shape}")
        linear._packed = _core.PackedLinear.of_panels(
            linear.dtype, linear.out_features, linear.in_features, panels, offset
        )
        return linear

    def __repr__(self) -> str:
        stored = "" if self.dtype == "float32" else f", dtype={self.dtype}"
        return f"Linear(in_features={self.in_features}, out_features={self.out_features}{stored})"

    def __call__(
        self,
        x: ArrayLike,
        *,
        activation: Activation | None = None,
        factor: ArrayLike | Linear | None = None,
        residual: ArrayLike | None = None,
        out: Output | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Project the last axis of ``x``.

        Parameters
        ----------
        x : array of shape (..., in_features)
            float32, float16 or bfloat16; sums are float32.
        activation : {None, "relu", "gelu", "gelu_tanh", "silu"}
            "gelu" is the exact one, ``x · Phi(x)``; "gelu_tanh" its tanh approximation.
        factor : Linear or array of shape (..., out_features), optional
            Multiplied by what the activation gives, as gated layers do (Shazeer, GLU variants,
            2020): ``gate(x, activation="silu", factor=up)``. A `Linear` of as many features stands
            for ``up(x)``, has the same bits, and spares writing and reading it; an array has the
            result's dtype and may be ``out`` itself.
        residual : array of shape (..., out_features), optional
            Added last; the result's dtype. May be ``out`` itself.
        out : array of shape (..., out_features), optional
            Where the result goes, apart from x. It has x's dtype; with bfloat16 or integer storage
            any of float32, float16 and bfloat16, so that results pass between layers in the dtype
            that the next one reads.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        array of shape (..., out_features), x's dtype or out's
            Bitwise the same for any number of threads and whatever rows stand beside a row.

        Raises
        ------
        TypeError
            x, the factor or the residual has a dtype that is not supported; nothing is written.
        ValueError
            Shapes do not fit, the factor or the residual has another dtype than the result, or
            ``out`` has a dtype or memory that it cannot have; nothing is written.
        MemoryError
            Memory cannot be had; nothing is written.
        """
        rows = as_array("x", x)
        if rows.ndim == 0:
            raise ValueError("x must have at least one dimension")
        layer = multiplier = None
        if isinstance(factor, Linear):
            layer = factor._packed
        elif factor is not None:
            multiplier = as_array("factor", factor)
        addition = None if residual is None else as_array("residual", residual)
        shape = (*rows.shape[:-1], self.out_features)
        _check_companion("factor", multiplier, shape)
        _check_companion("residual", addition, shape)
        written = None if out is None else as_output(out)
        if written is not None:
            _check_companion("out", written, shape)
            arrays = {"x": rows, "factor": multiplier, "residual": addition}
            require_apart(written, arrays, may_be=("factor", "residual"))
        result: Array = self._packed.run(
            as_matrix(rows),
            activation or "",
            layer if multiplier is None else as_matrix(multiplier),
            None if addition is None else as_matrix(addition),
            None if written is None else as_output_matrix(written),
            thread_count(num_threads),
        )
        if out is None and rows.ndim != 2:
            result = result.reshape(shape)
        if rows is x and (out is None or written is out):  # arrays all, told quickly
            return result if written is None else written
        return in_kind_of(x, result, out)


def part_of(linear: Linear, begin: int, end: int) -> tuple[Linear, int]:
    """A layer of the features begin … end − 1 alone, which shares the weights of the whole one.

    It begins with a whole panel of these: the second result is how many features come before.
    """
    packed = linear._packed.part(begin, end)
    part = Linear.__new__(Linear)
    part._packed, part.dtype = packed, linear.dtype
    part.in_features, part.out_features = packed.in_features, packed.out_features
    return part, packed.out_features - (end - begin)


def _as_scale(name: str, value: ArrayLike) -> Array:
    """An array of floating-point numbers: of lists of Python's own, float32."""
    array = as_array(name, value)
    if array.dtype in (np.float64, np.int64) and isinstance(value, (list, tuple)):
        return array.astype(np.float32)
    check_floating(name, array)
    return array


def as_matrix(array: Array) -> Array:
    """All axes but the last as one: (..., n) → (rows, n)."""
    if array.ndim == 2:
        return array
    if array.shape[-1] == 0:
        return array.reshape(math.prod(array.shape[:-1]), 0)
    return array.reshape(-1, array.shape[-1])


def as_output_matrix(out: Array) -> Array:
    """(..., n) → (rows, n) without a copy, since the result must arrive in ``out``."""
    if out.ndim == 2:
        return out
    matrix = as_matrix(out)
    if not np.may_share_memory(matrix, out) and out.size:
        raise ValueError(
            f"out of shape {out.shape} and strides {out.strides} cannot be seen as a matrix: "
            "its leading dimensions must be contiguous with one another"
        )
    return matrix


def _check_companion(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    if array is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {array.shape}")
