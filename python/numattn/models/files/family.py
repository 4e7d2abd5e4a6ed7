"""Which family of models a folder is of: model_type, or what tells it without one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from .checkpoint import files_of, read_header, weights_at
from .foreign_code import ENDINGS
from .settings import Settings

# A family → a tensor that its files have, and those of no other.
SIGNATURES = {
    "albert": r"(albert\.)?encoder\.embedding_hidden_mapping_in\.weight",
    "bert": r"bert\.encoder\.layer\.0\.attention\.self\.query\.weight",
    "distilbert": r"(distilbert\.)?transformer\.layer\.0\.attention\.q_lin\.weight",
    "electra": r"electra\.encoder\.layer\.0\.attention\.self\.query\.weight",
    "gpt2": r"(transformer\.)?h\.0\.attn\.c_attn\.weight",
    "modernbert": r"(model\.)?layers\.0\.attn\.Wqkv\.weight",
    "mpnet": r"(mpnet\.)?encoder\.relative_attention_bias\.weight",
    # XLM-RoBERTa and CamemBERT have the same layers under the same names.
    "roberta": r"roberta\.encoder\.layer\.0\.attention\.self\.query\.weight",
}


def family_of(settings: Settings, known: Collection[str]) -> str:
    """Return the family of a config.json.

    Without model_type, `architectures` tells it, or else the names of tensors, if they are those of
    one family alone.

    Parameters
    ----------
    settings : Settings
        The config.json.
    known : collection of str
        The families that are carried out.

    Raises
    ------
    ValueError
        If it is no known one, or cannot be told.
    """
    if settings.get("model_type") is not None:
        return settings.one_of("model_type", known)
    for found in (by_architectures(settings, known), by_tensors(settings, known)):
        if len(found) == 1:
            return found.pop()
    raise ValueError(
        f"{settings.path} has no model_type, and neither architectures nor the names of tensors "
        "tell it"
    )


def by_architectures(settings: Settings, known: Collection[str]) -> set[str]:
    """Return the families whose classes a config.json names."""
    names = settings.get("architectures", [])
    stems = (
        {plain(name) for name in names if isinstance(name, str)}
        if (isinstance(names, list))
        else set()
    )
    return {family for family in known if family.replace("-", "").replace("_", "") in stems}


def plain(name: str) -> str:
    """Return the name of a class in lower case, without what it ends in for its task.

    >>> plain("XLMRobertaForTokenClassification")
    'xlmroberta'
    """
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return name.removesuffix(ending).lower()
    return name.lower()


def by_tensors(settings: Settings, known: Collection[str]) -> set[str]:
    """Return the families that the names of a folder's tensors fit."""
    path = weights_at(settings.path.parent / "model.safetensors")
    names: set[str] = set()
    for file in files_of(path):
        if not file.exists():
            return set()
        names.update(read_header(file))
    return {family for family in known if fits(SIGNATURES.get(family), names)}


def fits(signature: str | None, names: Iterable[str]) -> bool:
    """Return whether one of the names is that of a family's own tensor."""
    return signature is not None and any(re.fullmatch(signature, name) for name in names)
