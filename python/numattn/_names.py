"""The names that arguments' types have in signatures, once for all modules."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Float32Array: TypeAlias = NDArray[np.float32]
Int64Array: TypeAlias = NDArray[np.int64]

Layout: TypeAlias = Literal["bhsd", "bshd"]
Precision: TypeAlias = Literal["highest", "high"]
Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "silu"]
