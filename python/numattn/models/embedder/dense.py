"""Projections of pooled vectors: the Dense modules of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from numattn import Linear

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.settings import Settings

# Their names in PyTorch → what they do in place.
ACTIVATIONS: dict[str, Callable[[Float32Array], Any] | None] = {
    "torch.nn.modules.linear.Identity": None,
    "torch.nn.modules.activation.Tanh": lambda x: np.tanh(x, out=x),
}
WEIGHT = "linear.weight"


@dataclass(frozen=True)
class Dense:
    """A projection of vectors and what follows it."""

    linear: Linear
    activation: str

    @classmethod
    def read(cls, folder: Path, width: int) -> Dense:
        """Read the folder of a module that takes vectors of `width` numbers.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If one is damaged, or asks for something that is not supported.
        """
        settings = Settings.from_file(folder / "config.json")
        for name in ("module_input_name", "module_output_name"):
            settings.one_of(name, ("sentence_embedding",), "sentence_embedding")
        settings.one_of("use_residual", (False,), False)
        if settings.size("in_features") != width:
            raise ValueError(
                f"{settings.path}: in_features is {settings.size('in_features')}, and vectors have "
                f"{width} numbers"
            )
        out = settings.size("out_features")
        activation = settings.one_of(
            "activation_function", ACTIVATIONS, "torch.nn.modules.activation.Tanh"
        )
        checkpoint = Checkpoint(folder / "model.safetensors", WEIGHT)
        weight = checkpoint.take(WEIGHT, (out, width))
        bias = checkpoint.take("linear.bias", (out,)) if settings.flag("bias", True) else None
        checkpoint.finish("")
        return cls(Linear(weight, bias), activation)

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """Return what it makes of vectors (N, E)."""
        made: Float32Array = self.linear(vectors)
        change = ACTIVATIONS[self.activation]
        if change is not None:
            change(made)
        return made
