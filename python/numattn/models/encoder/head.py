"""What a model that was trained for a task has on top of its encoder, and what its labels are.

    logits = norm(activation(pooled·Wdenseᵀ + b))·Wᵀ + b

Families differ in which of the steps there are, and in what they call them. pooled is the state of
the first token or the mean of all; or the state of each token, which is then classified by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from numattn import Linear

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.settings import Settings, shown
from ..norms import LayerNorm
from ..ragged import Ragged
from .config import read_activation
from .parts import read_linear, read_norm
from .pooling import POOLINGS, Pooling

Task: TypeAlias = Literal["sequence", "token", "span"]
NO_LABELS = 2  # as many as transformers takes there to be where nothing says


@dataclass(frozen=True)
class HeadNames:
    """What a family calls the parts of a head for whole sequences; "" for a part that is not."""

    dense: str
    out: str
    activation: str = "tanh"
    in_encoder: bool = False  # whether dense stands among the encoder's tensors


BERT_HEAD = HeadNames("pooler.dense", "classifier", in_encoder=True)
ROBERTA_HEAD = HeadNames("classifier.dense", "classifier.out_proj")
# model_type → the head of a sequence.
HEADS = {
    "albert": replace(BERT_HEAD, dense="pooler"),
    "bert": BERT_HEAD,
    "camembert": ROBERTA_HEAD,
    "distilbert": HeadNames("pre_classifier", "classifier", "relu"),
    "electra": replace(ROBERTA_HEAD, activation="gelu"),
    "gte": BERT_HEAD,
    "modernbert": HeadNames("head.dense", "classifier"),
    "mpnet": ROBERTA_HEAD,
    "nomic_bert": BERT_HEAD,
    "roberta": ROBERTA_HEAD,
    "xlm-roberta": ROBERTA_HEAD,
}


@dataclass(frozen=True)
class Head:
    """The layers on top of an encoder."""

    pooling: Pooling | None
    """None where each token is classified by itself."""
    dense: Linear | None
    activation: str
    norm: LayerNorm | None
    out: Linear

    def __call__(
        self, hidden: Float32Array, sequences: Ragged, num_threads: int | None
    ) -> Float32Array:
        """Return logits (N, L) of sequences, or (T, L) of tokens, from hidden states (T, E)."""
        x = hidden if self.pooling is None else self.pooling(hidden, sequences)
        if self.dense is not None:
            if self.activation == "tanh":
                x = np.tanh(self.dense(x, num_threads=num_threads))
            else:
                x = self.dense(x, activation=self.activation, num_threads=num_threads)  # type: ignore[arg-type]
        if self.norm is not None:
            x = self.norm(x, num_threads)
        logits: Float32Array = self.out(x, num_threads=num_threads)
        return logits


def read_head(
    checkpoint: Checkpoint, settings: Settings, family: str, width: int, task: Task, labels: int
) -> Head:
    """Return the head of a folder.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its tensors.
    settings : Settings
        Its config.json.
    family : str
        Its model_type.
    width : int
        Of hidden states.
    task : {"sequence", "token", "span"}
        Whether sequences are classified, tokens are, or a span of tokens is found.
    labels : int
        How many.

    Raises
    ------
    ValueError
        If a tensor is missing or of another shape.
    """
    names = HEADS[family]
    modern = family == "modernbert"
    pooling = None
    if task == "sequence":
        kind = settings.one_of("classifier_pooling", ("cls", "mean"), "cls") if modern else "cls"
        pooling = POOLINGS[kind]
    dense, norm, activation = None, None, names.activation
    if modern:
        activation = read_activation(settings, "classifier_activation", "gelu")
        bias = settings.flag("norm_bias", False)
        eps = settings.number("norm_eps", 1e-5)
        norm = read_norm(checkpoint, "head.norm", width, eps, bias=bias, from_root=True)
    if modern or task == "sequence":
        bias = settings.flag("classifier_bias", False) if modern else True
        dense = read_linear(
            *(checkpoint, [names.dense], width, width, "float32"),
            bias=bias,
            from_root=not names.in_encoder,
        )
    out = names.out if task == "sequence" else "classifier"
    if task == "span" and not modern:
        out = "qa_outputs"
    last = read_linear(checkpoint, [out], labels, width, "float32", from_root=True)
    return Head(pooling, dense, activation, norm, last)


def read_labels(settings: Settings) -> tuple[str, ...]:
    """Return the labels of a config.json, in the order of their numbers.

    Raises
    ------
    ValueError
        If they are not numbered from 0 on, or there is none.
    """
    given = settings.part("id2label").values
    if not given:
        return tuple(f"LABEL_{number}" for number in range(settings.size("num_labels", NO_LABELS)))
    numbered = {str(number): given.get(str(number)) for number in range(len(given))}
    if not all(isinstance(label, str) for label in numbered.values()):
        raise ValueError(
            f"{settings.path}: id2label {shown(dict(given))} does not name labels from 0 on"
        )
    return tuple(map(str, numbered.values()))
