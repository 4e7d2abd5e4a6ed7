"""Tokenizers of pieces of sentencepiece's that are joined pair by pair (BPE): Llama, Gemma.

A text becomes the pieces of its characters, and then whatever two neighbours make the piece of the
best score become one. A character that is no piece is its bytes, where the model has pieces for
these (byte fallback), or else the unknown token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .sentencepiece_file import MARK, PAIRS, read_model
from .settings import Settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL, OWN = 3, 4  # types of pieces: those of no text, and those that are never taken apart


def make_joined_pieces(
    kind: str, settings: Settings, names: dict[str, str], path: Path
) -> Tokenizer:
    """Return the tokenizer of a tokenizer.model.

    add_prefix_space of tokenizer_config.json goes before what the model says of a space in front.
    """
    from tokenizers import AddedToken, Tokenizer, models

    model = read_model(path, PAIRS)
    vocabulary = {piece.piece: number for number, piece in enumerate(model.pieces)}
    if len(vocabulary) != len(model.pieces):
        raise ValueError(f"{path} has a piece twice")
    made = Tokenizer(
        models.BPE(
            vocabulary,
            merges_of(vocabulary, [piece.score for piece in model.pieces]),
            unk_token=names["unk"],
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    prefix = settings.flag("add_prefix_space", model.normalizer_spec.add_dummy_prefix)
    set_spaces(made, model.normalizer_spec, prefix, settings.flag("legacy", False))
    for control in (True, False):
        add = made.add_special_tokens if control else made.add_tokens
        wanted = CONTROL if control else OWN
        add([AddedToken(piece.piece, special=control, normalized=False)
             for piece in model.pieces if piece.type == wanted])  # fmt: skip
    return made


def set_spaces(made: Tokenizer, spec: Any, prefix: bool, legacy: bool) -> None:
    """Say what becomes of the spaces of texts, and of those in front of them."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    before: list[Any] = []
    scheme = "never" if not prefix else "always" if legacy else "first"
    if spec.precompiled_charsmap:
        before.append(normalizers.Precompiled(bytes(spec.precompiled_charsmap)))
    if spec.remove_extra_whitespaces:
        before += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
        if prefix:  # Metaspace would not find the text's beginning, where something was taken away
            before.append(normalizers.Prepend(MARK))
            scheme = "never"
    if before:
        made.normalizer = normalizers.Sequence(before)
    made.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=MARK, prepend_scheme=scheme, split=False
    )
    back = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)


def add_ends(made: Tokenizer, settings: Settings, names: dict[str, str]) -> None:
    """Let a text have tokens around it: the first one, unless the settings say otherwise."""
    from tokenizers.processors import TemplateProcessing

    begin, end = names["bos"], names["eos"]
    parts = [begin, "$A"] if settings.flag("add_bos_token", True) else ["$A"]
    parts += [end] if settings.flag("add_eos_token", False) else []
    made.post_processor = TemplateProcessing(
        single=parts,
        special_tokens=[(token, made.token_to_id(token)) for token in (begin, end)],
    )


def merges_of(vocabulary: dict[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return which pieces are joined to which, in the order of what they become.

    sentencepiece joins whatever two neighbours make the piece of the best score.

    >>> merges_of({"a": 0, "b": 1, "ab": 2, "aba": 3}, [0, 0, -2, -1])
    [('ab', 'a'), ('a', 'b')]
    """
    # A damaged file may have a piece of a million characters, of which each cut is a copy.
    lengths = {len(piece) for piece in vocabulary} - {0}
    merges = []
    for piece, number in vocabulary.items():
        for cut in (each for each in lengths if len(piece) - each in lengths):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                order = (vocabulary[left], vocabulary[right])
                merges.append((-scores[number], number, order, (left, right)))
    return [pair for *_, pair in sorted(merges)]
