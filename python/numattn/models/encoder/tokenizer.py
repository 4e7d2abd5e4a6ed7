"""The tokenizer of an encoder's folder, set up as transformers and sentence-transformers do.

tokenizer_config.json changes what tokenizer.json says:

    model_max_length      how many tokens count, unless a sentence_*_config.json says it
    truncation_side       which end of a longer text counts not
    do_lower_case, strip_accents, tokenize_chinese_chars    in the normaliser of BERT's tokenizers
    add_prefix_space      in the pre-tokenizer of RoBERTa's

The padding and the number of tokens of whoever saved tokenizer.json do not count.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.foreign_code import refuse_foreign_code
from ..files.settings import Settings, shown
from ..files.tokens import load_tokenizer
from .bert_config import FAMILIES, ROBERTA_TYPES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BERT_CLASSES = tuple(
    f"{family}Tokenizer{fast}"
    for family in ("Bert", "DistilBert", "Electra", "MPNet")
    for fast in ("", "Fast")
)
ALBERT_CLASSES = ("AlbertTokenizer", "AlbertTokenizerFast")
# Classes that give every token of a single text the type 0, or none, whatever tokenizer.json says.
CLASSES_OF_ONE_TYPE = (
    *BERT_CLASSES,
    *(f"{family}Tokenizer{fast}" for family in ROBERTA_TYPES.values() for fast in ("", "Fast")),
)
# A setting of tokenizer_config.json → what it is called in BERT's normaliser.
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def read_tokenizer(
    folder: Path,
    max_positions: int,
    max_tokens: int | None,
    lower_case: bool,
    stems: Collection[str] = tuple(FAMILIES.values()),
) -> Tokenizer:
    """Return the tokenizer of a folder, which cuts texts where the model ends.

    Parameters
    ----------
    folder : Path
        Of tokenizer.json.
    max_positions : int
        How many tokens the model can take.
    max_tokens : int, optional
        How many it should take, if the folder says so elsewhere.
    lower_case : bool
        Whether texts become lower case first.
    stems : collection of str
        What the names of the tokenizer's classes may begin with.

    Raises
    ------
    FileNotFoundError
        If there is no tokenizer.json.
    ImportError
        If the library tokenizers is not installed.
    ValueError
        If tokenizer.json or tokenizer_config.json is damaged, or asks for what is not supported.
    """
    tokenizer = load_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    settings = Settings.from_file(path) if path.exists() else Settings({}, path)
    refuse_foreign_code(settings, (*stems, "PreTrained"))
    change_normalizer(tokenizer, settings)
    change_prefix(tokenizer, settings)
    check_types(tokenizer, settings, folder / "tokenizer.json")
    if lower_case:
        make_lower_case(tokenizer)
    if max_tokens is None:
        max_tokens = read_limit(settings)
    limit = max_positions if max_tokens is None else min(max_tokens, max_positions)
    special = tokenizer.num_special_tokens_to_add(False)
    if limit <= special:
        raise ValueError(
            f"{folder}: of {limit} tokens that a text may have, the tokenizer adds {special} itself"
        )
    own = tokenizer.truncation or {}
    side = settings.one_of("truncation_side", ("right", "left"), own.get("direction", "right"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit, direction=side)
    return tokenizer


def read_limit(settings: Settings) -> int | None:
    """Return model_max_length, which may be a number beyond all texts; None if there is none."""
    for name in ("model_max_length", "max_len"):
        limit = settings.optional_number(name)
        if limit is not None:
            if limit != int(limit):
                raise ValueError(f"{settings.path}: {name} must be a whole number, not {limit}")
            return int(limit)
    return None


def change_normalizer(tokenizer: Tokenizer, settings: Settings) -> None:
    """Give the normaliser of one of BERT's tokenizers what tokenizer_config.json says of it."""
    from tokenizers import normalizers  # there is the library, since it has loaded

    given = {name: settings.get(name) for name in NORMALIZER if settings.get(name) is not None}
    if settings.get("tokenizer_class") in ALBERT_CLASSES and "do_lower_case" in given:
        if settings.flag("do_lower_case", True) != has_lower_case(tokenizer.normalizer):
            raise ValueError(
                f"{settings.path}: do_lower_case {given['do_lower_case']} is not supported where "
                f"the normalizer of tokenizer.json is {shown(tokenizer.normalizer)}"
            )
    if settings.get("tokenizer_class", BERT_CLASSES[0]) not in BERT_CLASSES or not given:
        return
    for name in given:
        settings.flag(name, False)
    normalizer: Any = tokenizer.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        for name, value in given.items():
            setattr(normalizer, NORMALIZER[name], value)
        tokenizer.normalizer = normalizer
    elif given.get("do_lower_case") and not has_lower_case(normalizer):
        raise ValueError(
            f"{settings.path}: do_lower_case true is not supported where the normalizer of "
            f"tokenizer.json is {shown(normalizer)}"
        )


def change_prefix(tokenizer: Tokenizer, settings: Settings) -> None:
    """Let RoBERTa's pre-tokenizer put a space before a text or not, as the settings say."""
    from tokenizers import pre_tokenizers

    pre_tokenizer: Any = tokenizer.pre_tokenizer
    if isinstance(pre_tokenizer, pre_tokenizers.ByteLevel):
        wanted = settings.flag("add_prefix_space", pre_tokenizer.add_prefix_space)
        if wanted != pre_tokenizer.add_prefix_space:
            pre_tokenizer.add_prefix_space = wanted
            tokenizer.pre_tokenizer = pre_tokenizer


def check_types(tokenizer: Tokenizer, settings: Settings, path: Path) -> None:
    """Raise ValueError for a tokenizer that gives a single text's tokens other types than 0."""
    if settings.get("tokenizer_class", BERT_CLASSES[0]) in CLASSES_OF_ONE_TYPE:
        return
    if "token_type_ids" not in settings.get("model_input_names", ["token_type_ids"]):
        return
    try:
        types = tokenizer.encode("a").type_ids
    except Exception as error:  # the library raises Exception itself, of no narrower class
        raise ValueError(f"{path} cannot read a text: {error}") from None
    if any(types):
        raise ValueError(f"{path} gives tokens types other than 0 ({types}): not supported")


def make_lower_case(tokenizer: Tokenizer) -> None:
    """Let texts become lower case before all else."""
    from tokenizers import normalizers

    if not has_lower_case(tokenizer.normalizer):
        after = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *after])


def has_lower_case(normalizer: Any) -> bool:
    """Return whether a normaliser of the library, or a part of it, makes texts lower case."""

    def within(state: dict[str, Any]) -> bool:
        return state["type"] == "Lowercase" or any(map(within, state.get("normalizers", [])))

    return normalizer is not None and within(json.loads(normalizer.__getstate__()))
