"""The names that arguments' types have in signatures, once for all modules."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Float32Array: TypeAlias = NDArray[np.float32]
Int64Array: TypeAlias = NDArray[np.int64]


class Tensor(Protocol):
    """An array of another library, which says by DLPack where its numbers are."""

    def __dlpack__(self, *args: Any, **options: Any) -> Any:
        """Return what DLPack tells of it."""


Output: TypeAlias = Array | Tensor
Layout: TypeAlias = Literal["bhsd", "bshd"]
Precision: TypeAlias = Literal["highest", "high"]
Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "silu"]
