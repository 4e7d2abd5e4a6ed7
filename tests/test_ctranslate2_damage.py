"""Folders of CTranslate2's that are damaged, or ask for what is not supported."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctranslate2_folders import after_name, changed_number, read_case, write_case
from numattn.models import load
from numattn.models.files.ctranslate2_file import STORED, Ctranslate2File


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    """At whatever byte; nothing that it claims to hold is made room for."""
    data = read_case("marian")["file_model.bin"].tobytes()
    ends = [*range(0, 60, 7), *range(100, len(data), 1009), len(data) - 1]
    for end in ends:
        folder = write_case(tmp_path, "marian", model=data[:end])
        with pytest.raises(ValueError, match=r"model\.bin.*is missing"):
            load(folder)
    with pytest.raises(ValueError, match="goes on after its aliases, by 3 bytes"):
        load(write_case(tmp_path, "marian", model=data + b"abc"))


@pytest.mark.parametrize(
    ("start", "bytes_", "message"),
    [
        (0, struct.pack("<I", 7), "version 7, which is not read: those read are 4, 5, 6"),
        (0, b"PK\x03\x04", "is not a model of CTranslate2's"),
        (6, b"TransformerSpex", "specification 'TransformerSpex' is not supported"),
        (21, b"x", "no name at byte 4: it does not end in 0"),
        (7, b"\xff", "no name at byte 4"),
        (22, struct.pack("<I", 6), "revision 6 of TransformerSpec is not supported; supported: 7"),
        (26, struct.pack("<I", 2**32 - 1), "is not a model of CTranslate2's"),
    ],
)
def test_a_damaged_head(tmp_path: Path, start: int, bytes_: bytes, message: str) -> None:
    data = bytearray(read_case("marian")["file_model.bin"].tobytes())
    data[start : start + len(bytes_)] = bytes_
    with pytest.raises(ValueError, match=message):
        load(write_case(tmp_path, "marian", model=bytes(data)))


@pytest.mark.parametrize("case", ["opennmt", "llama", "whisper"])
def test_damaged_bits(tmp_path: Path, case: str, rng: np.random.Generator) -> None:
    """Any but those of weights: the same model, another one, or an error that names the file."""
    folder = write_case(tmp_path, case)
    path, variables = folder / "model.bin", Ctranslate2File(folder).variables.values()
    data = path.read_bytes()
    inside = np.zeros(len(data), np.bool_)
    for variable in variables:
        if variable.shape:
            size = np.dtype(STORED[variable.kind]).itemsize * int(np.prod(variable.shape))
            inside[variable.start : variable.start + size] = True
    failures = 0
    for place in rng.choice(np.flatnonzero(~inside), 40).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load(folder)
        except ValueError as error:
            assert str(folder) in str(error)
            failures += 1
    assert failures > 30


@pytest.mark.parametrize(
    ("place", "bytes_", "message"),
    [
        (0, b"\x09", "'decoder/embeddings/weight' has 9 axes"),
        (1, struct.pack("<I", 2**31), "takes 137438953472 bytes, and has 2560"),
        (1, struct.pack("<I", 41), r"of shape \(41, 16\) and float32 takes 2624 bytes"),
        (9, b"\x06", "'decoder/embeddings/weight' is of kind 6, which is unknown"),
        (9, b"\x01", "takes 640 bytes, and has 2560"),
        (10, struct.pack("<I", 2**32 - 1), "takes 2560 bytes, and has 4294967295"),
    ],
)
def test_a_damaged_variable(tmp_path: Path, place: int, bytes_: bytes, message: str) -> None:
    data = bytearray(read_case("marian")["file_model.bin"].tobytes())
    start = after_name(bytes(data), "decoder/embeddings/weight") + place
    data[start : start + len(bytes_)] = bytes_
    with pytest.raises(ValueError, match=message):
        load(write_case(tmp_path, "marian", model=bytes(data)))


@pytest.mark.parametrize(
    ("case", "name", "value", "form", "message"),
    [
        ("marian", "decoder/alibi", 1, "<b", "decoder/alibi 1.0 is not supported; supported: 0"),
        ("marian", "decoder/activation", 5, "<b", "activation of the encoder, 2.0, and of the dec"),
        ("marian", "encoder/num_heads", 3, "<h", "16 numbers do not divide into 3 encoder/num_he"),
        ("marian", "encoder/num_heads", 0, "<h", "do not divide into 0 encoder/num_heads"),
        ("marian", "encoder/pre_norm", 1, "<b", "pre_norm of the encoder, 1.0, and of the decod"),
        ("marian", "encoder/scale_embeddings", 3.5, "<f", "scale_embeddings of the encoder, 3.5"),
        ("llama", "decoder/activation", 5, "<b", "decoder/activation 5 is not supported"),
        ("llama", "decoder/scale_embeddings", 1, "<b", "scale_embeddings 4.0 is not supported"),
        ("llama", "decoder/pre_norm", 0, "<b", "decoder/pre_norm 0.0 is not supported"),
        ("llama", "decoder/layer_1/self_attention/rotary_base", 5, "<f", "must be the same in all"),
        ("linear", "decoder/layer_0/self_attention/rotary_scaling_type", 2, "<b",
         "must be the same in all layers"),
        ("whisper", "decoder/activation", 0, "<b", "decoder/activation 0.0 is not supported; supp"),
    ],
)  # fmt: skip
def test_choices_that_are_not_supported(
    tmp_path: Path, case: str, name: str, value: float, form: str, message: str
) -> None:
    data = read_case(case)["file_model.bin"].tobytes()
    folder = write_case(tmp_path, case, model=changed_number(data, name, value, form))
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert str(folder / "model.bin") in str(caught.value)


@pytest.mark.parametrize("case", ["marian", "llama", "whisper"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(tmp_path: Path, case: str, value: float) -> None:
    name = "decoder/num_heads"
    data = changed_number(read_case(case)["file_model.bin"].tobytes(), name, value, "<e")
    start = after_name(data, name)
    assert data[start : start + 2] == b"\0\2"  # no axes, and int16
    damaged = data[: start + 1] + b"\4" + data[start + 2 :]
    folder = write_case(tmp_path, case, model=damaged)
    with pytest.raises(ValueError, match=f"{name} in {folder}/model.bin is {value}, and not fin"):
        load(folder)


@pytest.mark.parametrize(
    ("case", "old", "new", "message"),
    [
        ("marian", b"encoder/layer_1/ffn/linear_0/bias\0", b"encoder/layer_1/ffn/linear_0/bios\0",
         "has no variable encoder/layer_1/ffn/linear_0/bias"),
        ("llama", b"decoder/layer_0/ffn/linear_1/weight_scale\0",
         b"decoder/layer_0/ffn/linear_1/weight_scole\0", "is int8, without a scale for each"),
        ("llama", b"decoder/layer_0/self_attention/num_heads_kv\0",
         b"decoder/layer_0/self_attention/num_heads_kx\0", "must be the same in all layers"),
        ("llama", b"decoder/alignment_heads\0", b"decoder/sliding_window_\0",
         "that the model of its configuration does not use: decoder/sliding_window_"),
        ("gpt2", b"layer_1/", b"layer_3/", "has no variable decoder/layer_1"),
        ("gpt2", b"layer_1/", b"layer_0/", r"has a variable 'decoder/layer_0/\S+' twice"),
    ],
)  # fmt: skip
def test_variables_that_are_missing_or_unused(
    tmp_path: Path, case: str, old: bytes, new: bytes, message: str
) -> None:
    data = read_case(case)["file_model.bin"].tobytes()
    assert old in data
    with pytest.raises(ValueError, match=message):
        load(write_case(tmp_path, case, model=data.replace(old, new)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token": "</x>"}, "eos_token '</x>' is no token of the vocabulary"),
        ({"eos_token": None}, "eos_token None is no token of the vocabulary"),
        ({"add_source_bos": 3}, "add_source_bos must be true or false, not 3"),
        ({"layer_norm_epsilon": "x"}, "layer_norm_epsilon must be a positive number, not 'x'"),
    ],
)
def test_settings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_case(tmp_path, "bart")
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, **changes}))
    with pytest.raises(ValueError, match=message):
        load(folder)
    path.write_text(json.dumps(settings | {"decoder_start_token": None}))
    model = load(folder)
    with pytest.raises(ValueError, match="prompt must be given"):
        model.generate([[5, 2]])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        load(folder)
