"""Commands with encoders of other families than BERT's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tiny_decoders
from command_line import refused
from numattn.cli import main
from numattn.models import load
from tiny_encoders import write_folder

GOLDEN = Path(__file__).parent / "data" / "encoders_golden.npz"


def folder_of(folder: Path, stem: str) -> Path:
    with np.load(GOLDEN) as file:
        parts = json.loads(str(file[f"{stem}/0/ForSequenceClassification/folder"]))
    return write_folder(folder, **parts)


@pytest.mark.parametrize("stem", ["ModernBert", "MPNet"])
def test_embed(tmp_path: Path, stem: str) -> None:
    folder, out = folder_of(tmp_path / "model", stem), tmp_path / "vectors.npy"
    assert main(["embed", "a cat", "dog", "--out", str(out), "--model", str(folder)]) == 0
    np.testing.assert_array_equal(np.load(out), load(folder).encoder.encode(["a cat", "dog"]))


def test_attend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, "ModernBert")
    assert main(["attend", "the cat sat on it", "--word", "it", "--model", str(folder)]) == 0
    assert "cat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "what"), [(["embed", "a cat"], "vectors"),
                          (["attend", "a cat", "--word", "cat"], "attention maps")]
)  # fmt: skip
def test_a_decoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], what: str
) -> None:
    folder = tiny_decoders.write_folder(tmp_path)
    assert f"a Llama makes no {what}" in refused(capsys, *command, "--model", folder)
