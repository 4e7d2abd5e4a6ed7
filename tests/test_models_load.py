"""Which class a folder is loaded by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_bert
import tiny_decoders
import tiny_marian
from numattn.models import Seq2Seq, load
from numattn.models.decoders import llama_config
from numattn.models.encoder_decoder import bart, t5
from numattn.models.load import CLASSES, named
from numattn.models.vision import clip_config, detr_config, vit_config
from tolerance import assert_same_bits


@pytest.mark.parametrize("family", tiny_decoders.FAMILIES)
def test_decoders_are_found(tmp_path: Path, family: str) -> None:
    folder = tiny_decoders.write_folder(tmp_path, family)
    model = load(folder, dtype="bfloat16")
    kind = tiny_decoders.class_of(family)
    assert type(model) is kind
    assert_same_bits(model([[1, 2, 3]]), kind.from_folder(folder, dtype="bfloat16")([[1, 2, 3]]))


def test_a_translator_is_found(tmp_path: Path) -> None:
    assert type(load(tiny_marian.write_folder(tmp_path))) is Seq2Seq


def test_every_family_that_a_class_reads_is_listed() -> None:
    families = {**llama_config.CLASSES, "gpt2": "GPT2", "gpt_neox": "GPTNeoX"}
    for vision in (clip_config, detr_config, vit_config):
        families.update(vision.FAMILIES)
    for place in set(CLASSES.values()):
        if place.startswith("encoder."):
            families.update(named(place).FAMILIES)
    families |= {**bart.FAMILIES, **t5.FAMILIES, "whisper": "Whisper"}
    assert set(CLASSES) == set(families)


@pytest.mark.parametrize("place", sorted(set(CLASSES.values())))
def test_every_class_is_there(place: str) -> None:
    assert callable(named(place).from_folder)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            "gemma4",
            r"model_type 'gemma4' is not supported; the nearest is 'gemma'; supported are ",
        ),
        (
            "zzz",
            r"model_type 'zzz' is not supported; supported are albert, bart, bert, camembert, ",
        ),
        (7, r"model_type 7 is not supported"),
    ],
)
def test_an_unsupported_family_is_told_the_nearest(
    tmp_path: Path, given: object, expected: str
) -> None:
    tiny_bert.write_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": given}), encoding="utf-8")
    with pytest.raises(ValueError, match=expected):
        load(tmp_path)


def test_no_folder_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        load("sentence-transformers/all-MiniLM-L6-v2")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load(tmp_path)
