"""Parts of layers, read from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from numattn import Linear

from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..norms import LayerNorm


def read_linear(
    checkpoint: Checkpoint,
    names: Sequence[str],
    rows: int,
    columns: int,
    storage: str,
    *,
    bias: bool = True,
    from_root: bool = False,
) -> Linear:
    """Return one projection for parts that read the same, each of so many rows."""
    if from_root:
        (name,) = names
        return Linear(
            checkpoint.take(
                f"{name}.weight", (rows, columns), from_root=True, dtype=number_dtype(storage)
            ),
            checkpoint.take(f"{name}.bias", (rows,), from_root=True) if bias else None,
            dtype=storage,
        )
    weight = checkpoint.take_joined(
        {f"{name}.weight": (rows, columns) for name in names}, number_dtype(storage)
    )
    shift = checkpoint.take_joined({f"{name}.bias": (rows,) for name in names}) if bias else None
    return Linear(weight, shift, dtype=storage)


def read_norm(
    checkpoint: Checkpoint,
    name: str,
    width: int,
    eps: float,
    *,
    bias: bool = True,
    from_root: bool = False,
) -> LayerNorm:
    """Return the normalisation whose parameters stand under `name` in the checkpoint."""
    weight = checkpoint.take(f"{name}.weight", (width,), from_root=from_root)
    shift = checkpoint.take(f"{name}.bias", (width,), from_root=from_root) if bias else None
    return LayerNorm(weight, shift, eps)
