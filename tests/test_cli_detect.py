"""`numattn detect`: what a DETR sees, as a table, as JSON and in a picture."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import numattn.cli.detect as detect
import tiny_detr
from command_line import command, refused
from numattn.cli import main
from numattn.cli.boxes import COLOURS, draw_boxes, figure_of
from numattn.models import Detr, load
from numattn.models.vision.detr import Detection

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detr.write_folder(tmp_path_factory.mktemp("detr"), "basic")


@pytest.fixture(scope="module")
def model(folder: Path) -> Detr:
    found = load(folder)
    assert isinstance(found, Detr)
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(tiny_detr.picture()).save(path)
    return path


def test_a_table(
    capsys: pytest.CaptureFixture[str], folder: Path, model: Detr, image: Path
) -> None:
    (seen,) = model.detect([image], threshold=0.0)
    between = (seen[1].probability + seen[2].probability) / 2
    for threshold, count in [("0", len(seen)), (f"{between:.9f}", 2)]:
        arguments = ["detect", str(image), "--model", str(folder), "--threshold", threshold]
        assert main(arguments) == 0
        name, header, *rows = capsys.readouterr().out.splitlines()
        assert name == str(image) and header.split() == ["left", "top", "right", "bottom"]
        assert len(rows) == count
        for row, each in zip(rows, seen, strict=False):
            chance, *box = row.split()[:5]
            assert chance == f"{each.probability:.3f}" and row.endswith(f"  {each.label}")
            assert [int(place) for place in box] == [round(place) for place in each.box]
            assert row.index(f"  {each.label}") == len(header)


def test_as_json(
    capsys: pytest.CaptureFixture[str], folder: Path, model: Detr, image: Path
) -> None:
    """An object for each image, in their order."""
    other = image.with_name("b.png")
    Image.fromarray(tiny_detr.picture()[:, ::-1]).save(other)
    arguments = ["detect", str(image), str(other), "--model", str(folder), "--json"]
    assert main([*arguments, "--threshold", "0"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["input"] for each in found] == [str(image), str(other)]
    for each, seen in zip(found, model.detect([image, other], threshold=0), strict=True):
        objects = [
            Detection(o["label"], o["probability"], tuple(o["box"])) for o in each["objects"]
        ]
        assert objects == seen and len(seen) == 5
    assert found[0]["objects"] != found[1]["objects"]


def test_nothing_is_seen(capsys: pytest.CaptureFixture[str], folder: Path, image: Path) -> None:
    arguments = ["detect", str(image), "--model", str(folder), "--threshold", "1"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{image}\n  nothing\n"
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == []


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture(
    capsys: pytest.CaptureFixture[str], folder: Path, image: Path, suffix: str
) -> None:
    out = image.with_name("boxes" + suffix)
    arguments = ["detect", str(image), "--model", str(folder), "--out", str(out)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{out}: the boxes"
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert out.read_bytes().startswith(start)
    with open(out, "wb") as stdout:
        process = subprocess.run(
            command(*arguments), stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert process.returncode == 0 and process.stderr.startswith(str(image))
    assert out.read_bytes().startswith(start)


def test_boxes_are_where_the_objects_are() -> None:
    """The frame of each box in its label's colour, on an image that is white."""
    image = np.full((40, 80, 3), 255, np.uint8)
    found = [
        Detection("a", 0.9, (10, 20, 40, 35)),
        Detection("b", 0.8, (50, 5, 70, 30)),
        Detection("a", 0.7, (60, 32, 78, 38)),
    ]
    content, lacks = draw_boxes(image, found, ".png")
    assert lacks == []
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (1280, 640)
        dots = np.asarray(picture.convert("RGB")).astype(int)
    scale = 16
    for each, colour in zip(found, [COLOURS[0], COLOURS[1], COLOURS[0]], strict=True):
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        left, top, right, bottom = (int(place * scale) for place in each.box)
        middle = ((top + bottom) // 2, (left + right) // 2)
        for row, column in [(middle[0], left), (middle[0], right), (bottom, middle[1])]:
            assert np.abs(dots[row, column] - wanted).max() <= 2
        inside = dots[middle[0] : bottom - 4, left + 4 : right - 4]
        assert inside.size and (inside == 255).all()


def test_labels_stay_in_the_picture() -> None:
    found = [Detection("东$x$", 1.0, (-5, -5, 30, 30)), Detection("b", 0.5, (0, 90, 30, 99))]
    figure = figure_of(np.zeros((100, 100, 3), np.uint8), found)
    low, high = figure.axes[0].texts
    assert [high.get_text(), low.get_text()] == ["东$x$ 100%", "b 50%"]
    assert (high.get_position(), high.get_va()) == ((-0.5, -0.5), "top")
    assert (low.get_position(), low.get_va()) == ((-0.5, 89.5), "bottom")


def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], folder: Path, image: Path, bert_folder: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    model = ["--model", folder]
    for arguments, message in [
        ([image], "the following arguments are required: --model"),
        (model, "the following arguments are required: IMAGE"),
        ([image, "--model", bert_folder], "holds a Bert, which detects nothing"),
        ([__file__, *model], f"{__file__} is not an image that Pillow can read"),
        ([empty, *model], f"{empty} is not an image that Pillow can read"),
        ([tmp_path, *model], f"{tmp_path} is a folder, not an image"),
        ([tmp_path / "none.png", *model], "No such file"),
        ([image, *model, "--threshold", "1.5"], "must be a number of 0 … 1, not '1.5'"),
        ([image, *model, "--threshold", "nan"], "must be a number of 0 … 1, not 'nan'"),
        ([image, image, *model, "--out", tmp_path / "b.png"], "--out draws one image, not 2"),
        ([image, *model, "--out", tmp_path / "b.jpg"], "must end with one of .png, .svg, .pdf"),
        ([image, *model, "--out", image], "is the same file as"),
        ([image, *model, "--out", tmp_path / "none" / "b.png"], "no folder "),
    ]:
        assert message in refused(capsys, "detect", *arguments)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "empty.png"]


def test_an_image_that_the_model_cannot_take(
    capsys: pytest.CaptureFixture[str], folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is named, and those before it are printed."""
    whole, calls = Detr.__call__, iter(range(2))

    def failing(model, numbers, **options):  # type: ignore[no-untyped-def]
        if next(calls):
            raise ValueError("it is too long")
        return whole(model, numbers, **options)

    monkeypatch.setattr(Detr, "__call__", failing)
    assert main(["detect", str(image), str(image), "--model", str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == str(image)
    assert printed.err == f"numattn detect: error: {image}: it is too long\n"


def test_a_reader_that_leaves_and_ctrl_c(
    capsys: pytest.CaptureFixture[str], folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    words = command("detect", image, image, "--json", "--model", folder)
    process = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, timeout=60)
    os.close(theirs)
    assert (process.returncode, process.stderr) == (1, b"")

    def interrupted(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(detect, "look", interrupted)
    out = image.with_name("boxes.png")
    arguments = ["detect", str(image), "--model", str(folder), "--out", str(out)]
    assert main(arguments) == 130
    assert capsys.readouterr() == ("", "") and os.listdir(image.parent) == ["a.png"]
