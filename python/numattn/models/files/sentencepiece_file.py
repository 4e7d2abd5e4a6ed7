"""A model of sentencepiece's: its pieces with their scores, and how texts are normalised."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

MARK = "\u2581"  # a space in pieces
SCORES, PAIRS = (
    1,
    2,
)  # kinds of models: pieces of the best sum of scores, pieces joined pair by pair
KINDS = {SCORES: "unigram", PAIRS: "bpe"}


def read_model(path: Path, kind: int) -> Any:
    """Return a model of a kind, as the message of sentencepiece's own that it is.

    Raises
    ------
    ImportError
        If sentencepiece or protobuf is not installed.
    ValueError
        If the file is damaged, has no pieces, or is of another kind.
    """
    try:
        pb2: Any = import_module("sentencepiece.sentencepiece_model_pb2")
    except ImportError:
        raise ImportError(
            f"reading {path.name} needs sentencepiece and protobuf: "
            "pip install 'numattn[sentencepiece]'"
        ) from None
    model = pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError
        raise ValueError(f"{path} is not a model of sentencepiece's: {error}") from None
    spec = model.trainer_spec
    if spec.model_type != kind or (kind == SCORES and spec.byte_fallback):
        raise ValueError(f"{path} is a model of sentencepiece's of another kind than {KINDS[kind]}")
    if len(model.pieces) < 4:
        raise ValueError(f"{path} is a model of sentencepiece's without pieces")
    return model
