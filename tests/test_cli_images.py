"""`numattn classify`, and `numattn attend` of an image and through all layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny_vision
from command_line import refused
from numattn.cli import main
from numattn.cli.overlay import ACCENT, Overlay, draw_overlay, figure_of, under_veil
from numattn.models import Bert, ViT, attention_rollout, load
from test_encoders import golden, made

__all__ = ["golden"]  # the fixture
FOLDER = Path(__file__).parent / "data" / "digits_vit"
THREE = FOLDER / "three.png"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision.write_folder(tmp_path_factory.mktemp("clip"), "clip")


def test_a_picture_is_classified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", str(FOLDER), str(THREE), str(THREE), "--top", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == printed[3] == str(THREE) and printed[1:3] == printed[4:]
    chance, label = printed[1].split()
    assert label == "three" and 0.5 < float(chance) <= 1


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", str(FOLDER), str(THREE), "--json", "--top", "10"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["input"] == str(THREE) and found["labels"][0]["label"] == "three"
    assert sum(each["probability"] for each in found["labels"]) == pytest.approx(1)


def test_labels_without_training(capsys: pytest.CaptureFixture[str], clip: Path) -> None:
    labels = ["--label", "cat", "--label", "dog", "--template", "a photo of the {}"]
    assert main(["classify", "--model", str(clip), str(THREE), *labels]) == 0
    printed = capsys.readouterr().out.splitlines()[1:]
    model, words = load(clip), ["cat", "dog"]
    (expected,) = model.classify([THREE], words, template="a photo of the {}")
    assert printed == [f"  {guess.probability:.3f}  {guess.label}" for guess in expected]


def test_what_is_not_classified(
    capsys: pytest.CaptureFixture[str], clip: Path, bert_folder: Path, tmp_path: Path
) -> None:
    for arguments, message in [
        ([THREE, "--model", clip], "a Clip needs --label, once for each label"),
        ([THREE, "--model", FOLDER, "--label", "a"], "a ViT has labels of its own"),
        ([tmp_path / "none.png", "--model", FOLDER], "No such file"),
        ([__file__, "--model", FOLDER], "is not an image that Pillow can read"),
        ([THREE], "the following arguments are required: --model"),
        ([THREE, "--model", FOLDER, "--top", "0"], "must be a whole number from 1 on"),
    ]:
        assert message in refused(capsys, "classify", *arguments)


def test_texts_are_classified(
    capsys: pytest.CaptureFixture[str], golden: dict[str, Any], tmp_path: Path
) -> None:
    """By models that classify those, which give all probabilities at once."""
    model = made(golden, tmp_path, "Bert", id2label={"0": "bad", "1": "good"})
    texts = [f"the cat sat on {number} dogs" for number in range(20)]
    assert main(["classify", *texts, "--model", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[::3] == texts
    for number, row in enumerate(model.probabilities(texts)):
        best = int(row.argmax())
        assert printed[3 * number + 1] == f"  {row[best]:.3f}  {model.labels[best]}"
        assert printed[3 * number + 2].endswith(model.labels[1 - best])


def test_an_image_is_drawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    arguments = ["attend", "--model", str(FOLDER), "--image", str(THREE), "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "[CLS], in layer 2 (counted from 0), the mean of 4 heads, looks at"
    assert printed[-1] == f"{out}: what the model looks at"
    model = ViT.from_folder(FOLDER)
    row = model.attention_weights(model.preprocess([THREE])[0], 2, rows=[0]).mean(axis=0)[0]
    place = int(row[1:].argmax())
    expected = f"row {place // 4 + 1} of 4, column {place % 4 + 1} of 4"
    assert printed[1] == f"  {row[1:].max():.3f}  {expected}"
    assert printed[-2] == f"  {row[0]:.3f}  no patch, but a token of the model's own"
    with Image.open(out) as picture:
        assert picture.format == "PNG" and 1000 < picture.width < 2000


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--layer", "0"], "in layer 0 (counted from 0), the mean of 4 heads"),
        (["--layer", "1", "--head", "3"], "in layer 1 (counted from 0), head 3"),
        (["--rollout"], "through all layers (rollout)"),
    ],
)
def test_layers_heads_and_rollout_of_an_image(
    capsys: pytest.CaptureFixture[str], options: list[str], where: str
) -> None:
    assert main(["attend", "--model", str(FOLDER), "--image", str(THREE), *options]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"[CLS], {where}, looks at"


@pytest.mark.parametrize("kind", ["siglip", "dinov2_with_registers", "clip"])
def test_other_families_are_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    folder = tiny_vision.write_folder(tmp_path / "model", kind)
    image, out = tmp_path / "a.png", tmp_path / "map.svg"
    Image.fromarray(tiny_vision.pictures()[4]).save(image)
    arguments = ["attend", "--model", folder, "--image", image, "--rollout", "--out", out]
    assert main([str(each) for each in arguments]) == 0
    who = capsys.readouterr().out.split(",")[0]
    assert who == ("the mean of all patches" if kind == "siglip" else "[CLS]")
    assert out.read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_a_sentence_through_all_layers(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, bert: Bert
) -> None:
    arguments = ["attend", "the cat sat on it", "--word", "cat", "--rollout"]
    assert main([*arguments, "--model", str(bert_folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == '"cat", through all layers (rollout) looks at'
    ids = bert.tokenizer.encode("the cat sat on it").ids
    row = attention_rollout(bert.attention_weights(ids))[2]
    assert printed[1].startswith(f"  {row.max():.3f}  ")


def test_what_does_not_go_together(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, tmp_path: Path
) -> None:
    image = ["--image", THREE]
    for arguments, message in [
        (image, "--image needs --model FOLDER, of a vision model"),
        (["a cat", *image, "--model", FOLDER], "--image goes without SENTENCE"),
        ([*image, "--word", "a", "--model", FOLDER], "--image goes without --word"),
        ([*image, "--model", bert_folder], "holds a Bert, which reads no images"),
        ([*image, "--model", FOLDER, "--layer", "3"], "layer must be in 0 … 2, not 3"),
        ([*image, "--model", FOLDER, "--out", THREE], "is the same file as"),
        ([*image, "--model", FOLDER, "--out", tmp_path / "a.txt"], "must end with one of"),
        (["a", "--word", "a", "--rollout", "--layer", "1"], "goes without --layer and --head"),
        (["--pattern", "causal:64", "--rollout"], "--pattern takes neither"),
    ]:
        assert message in refused(capsys, "attend", *arguments)


def test_the_veil() -> None:
    """Thick where the weight is, nothing where there is none, each patch over its part."""
    image = np.zeros((4, 6, 3), np.float32)
    shades = np.array([[1, 0, 0.5], [0, 0, 0]], np.float32)
    veiled = under_veil(image, shades, (1, 0, 0))
    assert (veiled[0, 0] == veiled[1, 1]).all() and veiled[0, 0, 0] > 0.9
    assert np.ptp(veiled[2:]) == 0 and (veiled[0, 2] == veiled[2, 0]).all()
    assert veiled[0, 0, 0] > veiled[0, 4, 0] > veiled[0, 2, 0]


def test_a_figure_of_a_wide_image() -> None:
    overlay = Overlay(
        np.zeros((8, 32, 1), np.float32), np.zeros((2, 8), np.float32), "nothing $x", "none"
    )
    width, height = figure_of(overlay).get_size_inches()
    assert width > 7 and 2 < height < 3
    assert draw_overlay(overlay, ".pdf").startswith(b"%PDF") and ACCENT.startswith("#")
