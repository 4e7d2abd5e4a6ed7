"""Hidden states of a text's tokens → one vector, as a sentence-transformers folder asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..files.checkpoint import read_json, read_json_object

Float32Array: TypeAlias = NDArray[np.float32]
Pooling: TypeAlias = Callable[[Float32Array], Float32Array]


def mean_of_tokens(hidden: Float32Array) -> Float32Array:
    """Return the mean over the tokens: (S, E) → (E,)."""
    mean: Float32Array = hidden.mean(axis=0)
    return mean


def first_token(hidden: Float32Array) -> Float32Array:
    """Return the state of the first token, [CLS]: (S, E) → (E,)."""
    first: Float32Array = hidden[0]
    return first


POOLINGS: dict[str, Pooling] = {"mean": mean_of_tokens, "cls": first_token}

# The modules of a sentence-transformers folder that encode() carries out.
MODULES = ("Transformer", "Pooling", "Normalize")


def read_pooling(folder: Path) -> Pooling:
    """Return the pooling of a folder: that of 1_Pooling/config.json, or else the mean.

    Raises
    ------
    ValueError
        If the folder pools in another way, or has a module after pooling that is not supported.
    """
    check_modules(folder / "modules.json")
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return mean_of_tokens
    settings = read_json_object(path)
    wanted = settings.get("pooling_mode")
    if wanted is None:
        chosen = [
            name.removeprefix("pooling_mode_")
            for name, value in settings.items()
            if name.startswith("pooling_mode_") and value is True
        ]
        wanted = "+".join(chosen).replace("mean_tokens", "mean").replace("cls_token", "cls")
    if wanted not in POOLINGS:
        raise ValueError(f"{path} asks for pooling {wanted!r}; supported are {[*POOLINGS]}")
    return POOLINGS[wanted]


def check_modules(path: Path) -> None:
    """Raise ValueError if a modules.json lists what encode() would not carry out."""
    if not path.is_file():
        return
    modules = read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{path} does not hold a list of modules")
    for module in modules:
        name = str(module.get("type", "")).rpartition(".")[2]
        if name not in MODULES:
            raise ValueError(f"{path} has a module {name!r}; supported are {[*MODULES]}")
