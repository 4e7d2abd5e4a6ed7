"""What a model asks of the file that holds its tensors, of whichever kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .integers import Integers


class Tensors(Protocol):
    """Tensors, each taken once, by name and shape; `Checkpoint` says what each of these does.

    What has a body is so for a file that does no better.
    """

    def take(
        self,
        name: str,
        shape: Sequence[int],
        *,
        from_root: bool = False,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]: ...

    def take_joined(
        self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32
    ) -> NDArray[Any]:
        """Return tensors of those names and shapes in one array, one below the other."""
        parts = [self.take(name, shape, dtype=dtype) for name, shape in shapes.items()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take_integers(self, name: str, shape: tuple[int, int]) -> Integers | None:
        """Return a quantised tensor as it is kept; None for one of which floats are wanted."""
        return None

    def take_bytes(self, name: str, shape: Sequence[int]) -> NDArray[np.uint8]: ...

    def has(self, name: str, *, from_root: bool = False) -> bool: ...

    def check_layers(self, stem: str, count: int, setting: str) -> None: ...
