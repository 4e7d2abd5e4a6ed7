"""Code that a folder carries beside its weights, which is not run.

auto_map of a config.json or tokenizer_config.json names classes in files of the folder, or of
another one. transformers runs them where it is told to trust them; else it takes its own class for
the model_type. Folders older than that class (Phi-3's, for one) still name theirs, which has become
that class and has its name: nothing is lost without it. Any other makes another model.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .settings import Settings, shown

# How transformers calls its classes for a family, after the family's own name.
ENDINGS = (
    *("Config", "PreTrainedModel", "Model", "LMHeadModel", "DoubleHeadsModel"),
    *("Tokenizer", "TokenizerFast"),
    *(
        f"For{task}"
        for task in (
            *("CausalLM", "MaskedLM", "PreTraining", "NextSentencePrediction", "MultipleChoice"),
            *("SequenceClassification", "TokenClassification", "QuestionAnswering"),
            *("ConditionalGeneration", "ImageClassification"),
        )
    ),
)


def refuse_foreign_code(settings: Settings, families: Collection[str]) -> None:
    """Raise ValueError for an auto_map of other classes than transformers' own.

    `families` are the names that those begin with, as "Bert" or "Phi3".
    """
    own = {family + ending for family in families for ending in ENDINGS}
    value = settings.get("auto_map")
    if not all(name in own for name in class_names(value)):
        raise ValueError(
            f"{settings.path}: auto_map {shown(value)} names code of the folder's own, which is "
            "not run"
        )


def class_names(value: Any) -> list[str | None]:
    """Return the classes that an auto_map names; None for what is no name.

    >>> class_names({"AutoModel": "owner/repo--modeling.Model", "AutoTokenizer": ["a.Slow", None]})
    ['Model', 'Slow']
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value.rpartition(".")[2]]
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        return [name for part in value for name in class_names(part)]
    return [None]
