"""Whichever class carries out a model's folder."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike

from .files.folder import model_folder
from .files.settings import Settings, shown

# model_type of config.json → module and class, which are imported when they are asked for.
CLASSES = {
    "bert": "encoder.bert:Bert",
    "camembert": "encoder.bert:Bert",
    "gemma2": "decoders.llama:Llama",
    "gpt2": "decoders.gpt:Gpt",
    "llama": "decoders.llama:Llama",
    "mistral": "decoders.llama:Llama",
    "phi3": "decoders.llama:Llama",
    "qwen2": "decoders.llama:Llama",
    "roberta": "encoder.bert:Bert",
    "xlm-roberta": "encoder.bert:Bert",
}
MARIAN = "translator.seq2seq:Seq2Seq"


def load(folder: str | Path, *, dtype: DTypeLike | None = None) -> Any:
    """Load a model by the class that its folder asks for.

    Parameters
    ----------
    folder : path
        The folder: of Hugging Face's kind, with config.json, or of a Marian model.
    dtype : {None, float32, bfloat16, int8}
        How weights are stored: float32 by default.

    Returns
    -------
    model
        What the class's own `from_folder` returns: a `Bert`, `Llama`, `Gpt`, `Seq2Seq` …

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As `from_folder` of the class does; and a ValueError if no class carries the folder out,
        which names the nearest that is supported.

    Examples
    --------
    >>> from numattn.models import installed_folder, load
    >>> model = load(installed_folder())
    >>> type(model).__name__
    'Bert'
    """
    return class_of(model_folder(folder)).from_folder(folder, dtype=dtype)


def class_of(folder: Path) -> Any:
    """Return the class that carries a folder out."""
    path = folder / "config.json"
    if not path.exists() and any(folder.glob("*.intgemm.alphas.bin")):
        return named(MARIAN)
    family = Settings.from_file(path).get("model_type")
    if not isinstance(family, str) or family not in CLASSES:
        raise ValueError(f"{path}: {unsupported(family)}")
    return named(CLASSES[family])


def named(place: str) -> Any:
    """Return the class of a "module:Class" of this package."""
    module, name = place.split(":")
    return getattr(import_module(f"{__package__}.{module}"), name)


def unsupported(family: object) -> str:
    """Return what to say of a model_type that no class carries out."""
    near = get_close_matches(str(family), CLASSES, n=1)
    nearest = f"the nearest is {near[0]!r}; " if near else ""
    return f"model_type {shown(family)} is not supported; {nearest}supported are " + ", ".join(
        sorted(CLASSES)
    )
