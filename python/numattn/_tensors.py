"""Tensors of other libraries, by DLPack: what the core cannot tell by itself.

The core reads a tensor whose type offers DLPack's exchange in C, as PyTorch's do, and everything
that comes in a capsule. Here are capsules asked for, is said why a tensor cannot be read, and are
results made tensors where a library has no exchange in C. Loaded when the first such tensor comes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from numattn import _core
from numattn._names import Array

READABLE = (1, 3, 11)
"""Devices of DLPack whose memory the processor reads: itself, and those whose memory is pinned."""

NEWEST = (1, 0)
"""The version of DLPack that is asked for."""


def bfloat16() -> np.dtype[Any]:
    """The dtype of arrays over tensors of bfloat16: that of ml_dtypes, or where that is not
    installed one that the core knows by its name, and NumPy takes for no number."""
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype([("bfloat16", np.uint16)])
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def array_of(tensor: Any, name: str) -> Array:
    """An array over a tensor's memory.

    Raises
    ------
    TypeError
        It is not in memory that the processor reads, or holds what NumPy has no dtype for.
    """
    try:
        kind, _ = tensor.__dlpack_device__()
        if int(kind) not in READABLE:
            raise _refusal(name, tensor, "is in other memory")
        plain = _plain(tensor)
        array: Array | None = _core.array_of_capsule(_capsule(plain), _is_writable(plain))
    except (BufferError, NotImplementedError, RuntimeError, ValueError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _refusal(name, tensor, f"cannot be read: {reason}") from error
    if array is None:
        raise _refusal(name, tensor, "has no memory that can be read, or numbers unknown here")
    return array


def _refusal(name: str, tensor: Any, reason: str) -> TypeError:
    """The error, with what the tensor says of itself."""
    kind = type(tensor)
    told = [f"{kind.__module__}.{kind.__qualname__}"]
    for word in ("dtype", "device", "layout"):
        value = getattr(tensor, word, None)
        if value is not None and not callable(value):
            told.append(f"{word} {value}")
    return TypeError(
        f"{name} ({', '.join(told)}) {reason}: a dense tensor in the memory of the CPU was expected"
    )


def _plain(tensor: Any) -> Any:
    """The tensor without what DLPack cannot say: gradients wanted, signs turned when read."""
    if getattr(tensor, "requires_grad", False) is True:
        tensor = tensor.detach()
    is_negated = getattr(tensor, "is_neg", None)
    if is_negated is not None and is_negated() is True:
        tensor = tensor.resolve_neg()
    return tensor


def _capsule(tensor: Any) -> Any:
    try:
        return tensor.__dlpack__(max_version=NEWEST)
    except TypeError:  # it is older than versions are
        return tensor.__dlpack__()


def _is_writable(tensor: Any) -> bool:
    """Whether a tensor may be written to whose capsule does not tell: only torch's are known to
    be."""
    return _library(tensor) == "torch"


def _library(tensor: Any) -> str:
    return type(tensor).__module__.partition(".")[0]


# --- results --------------------------------------------------------------------------------------


class Exported:
    """An array for another library's ``from_dlpack``."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __dlpack__(self, **_: Any) -> Any:
        """Return a capsule that keeps the array."""
        return _core.capsule_of(self._array)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return the CPU."""
        return (1, 0)


def tensor_of(array: Array, model: Any) -> Any:
    """A result as a tensor of the library that ``model`` comes from; the array itself where that
    library is not known to make any."""
    maker = _maker(model)
    return array if maker is None else maker(Exported(array))


def _maker(model: Any) -> Callable[[Any], Any] | None:
    """What makes a tensor of anything that has ``__dlpack__``."""
    library = _library(model)
    if library == "tensorflow":
        dlpack = sys.modules["tensorflow"].experimental.dlpack
        return lambda exported: dlpack.from_dlpack(exported.__dlpack__())
    namespace_of = getattr(model, "__array_namespace__", None)
    namespace = sys.modules.get(library) if namespace_of is None else namespace_of()
    return getattr(namespace, "from_dlpack", None)
