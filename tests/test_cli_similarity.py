"""`numattn similarity`: scores of two texts, and the texts most like a query."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import numattn.cli.similarity as similarity
import tiny_vision
from command_line import command, refused
from numattn.cli import main
from numattn.models import Bert, load
from test_encoders import golden, made
from test_heads import one_label

__all__ = ["golden"]  # the fixture
LINES = ["the cat sat", "", "a dog ran , and ran", "it was unbelievable", "the cat sat", "mat"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def expected(scores: Any, top: int) -> list[tuple[int, float]]:
    """Return the best by a stable sort: of equal ones the first comes first."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")[:top]
    return [(int(place), float(scores[place])) for place in order]


def found(text: str) -> list[tuple[int, float]]:
    objects = [json.loads(line) for line in text.splitlines()]
    assert all(each["text"] == LINES[each["index"]] for each in objects)
    return [(each["index"], each["score"]) for each in objects]


def assert_found(text: str, scores: Any, top: int) -> None:
    given, wanted = found(text), expected(scores, top)
    assert [place for place, _ in given] == [place for place, _ in wanted]
    np.testing.assert_allclose([s for _, s in given], [s for _, s in wanted], rtol=0, atol=1e-6)


def test_two_texts(capsys: pytest.CaptureFixture[str], bert_folder: Path, bert: Bert) -> None:
    texts = ["a cat", "the dog ran"]
    first, second = bert.encode(texts)
    assert main(["similarity", *texts, "--model", str(bert_folder)]) == 0
    assert capsys.readouterr().out == f"{first @ second:.4f}\n"
    assert main(["similarity", *texts, "--json", "--model", str(bert_folder)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"score": pytest.approx(float(first @ second), abs=1e-6)}


def test_of_the_installed_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similarity", "A cat sleeps.", "A kitten naps."]) == 0
    alike = float(capsys.readouterr().out)
    assert main(["similarity", "A cat sleeps.", "Shares fell."]) == 0
    assert alike > 0.5 > 0.2 > float(capsys.readouterr().out)


@pytest.mark.parametrize("top", [1, 3, 100])
@pytest.mark.parametrize("piece", [1, 2, 4096])
def test_lines_like_a_query(
    capsys: pytest.CaptureFixture[str],
    lines: Path,
    bert_folder: Path,
    bert: Bert,
    monkeypatch: pytest.MonkeyPatch,
    top: int,
    piece: int,
) -> None:
    """Best first, however many are read at once."""
    monkeypatch.setattr(similarity, "PIECE_LINES", piece)
    scores = bert.encode(LINES) @ bert.encode(["the dog sat"])[0]
    arguments = ["similarity", "--query", "the dog sat", "--file", str(lines), "--top", str(top)]
    assert main([*arguments, "--json", "--model", str(bert_folder)]) == 0
    assert_found(capsys.readouterr().out, scores, top)
    assert main([*arguments, "--model", str(bert_folder)]) == 0
    rows = capsys.readouterr().out.splitlines()
    wanted = expected(scores, top)
    margin = max(len(f"{score:.4f}") for _, score in wanted)
    assert rows == [f"{score:{margin}.4f}  {LINES[n] or '(empty)'}" for n, score in wanted]


def test_texts_and_standard_input(bert_folder: Path, bert: Bert) -> None:
    scores = bert.encode(LINES) @ bert.encode(["the dog sat"])[0]
    arguments = ("similarity", "--query", "the dog sat", "--json", "--model", bert_folder)
    for words, given in [(LINES, ""), ([], "\n".join(LINES)), (["-"], "\n".join(LINES) + "\n")]:
        process = subprocess.run(
            command(*arguments, *words), input=given, capture_output=True, text=True, timeout=60
        )
        assert (process.returncode, process.stderr) == (0, "")
        assert_found(process.stdout, scores, 10)


def test_a_cross_encoder(
    capsys: pytest.CaptureFixture[str], golden: dict[str, Any], lines: Path, tmp_path: Path
) -> None:
    """Reads both texts together, and the query first."""
    folder = tmp_path / "model"
    model = one_label(golden, folder)
    scores = model.score([("a dog", line) for line in LINES])
    assert not np.allclose(scores, model.score([(line, "a dog") for line in LINES]))
    arguments = ["similarity", "--query", "a dog", "--file", str(lines), "--json"]
    assert main([*arguments, "--model", str(folder)]) == 0
    assert_found(capsys.readouterr().out, scores, 10)
    assert main(["similarity", "a dog", LINES[2], "--model", str(folder)]) == 0
    assert capsys.readouterr().out == f"{scores[2]:.4f}\n"
    assert main(["similarity", "a dog", "cat " * 40, "--model", str(folder)]) == 0
    assert capsys.readouterr().err == (
        "numattn similarity: some texts have more tokens than the model reads, and were cut\n"
    )


def test_an_image(capsys: pytest.CaptureFixture[str], lines: Path, tmp_path: Path) -> None:
    folder = tiny_vision.write_folder(tmp_path / "clip", "clip")
    image = tmp_path / "a.png"
    Image.fromarray(tiny_vision.pictures()[4]).save(image)
    model = load(folder)
    scores = model.encode_texts(LINES) @ model.encode_images([image])[0]
    arguments = ["similarity", "--image", str(image), "--file", str(lines), "--json"]
    assert main([*arguments, "--model", str(folder)]) == 0
    assert_found(capsys.readouterr().out, scores, 10)
    message = refused(capsys, "similarity", "a", "b", "--model", folder)
    assert "holds a Clip, which compares --image" in message
    arguments = ["similarity", "--image", __file__, "a", "--model", str(folder)]
    assert "is not an image that Pillow can read" in refused(capsys, *arguments)


def test_texts_that_are_cut(capsys: pytest.CaptureFixture[str], bert_folder: Path) -> None:
    long = "cat " * 30
    model = ("--model", str(bert_folder))
    start = "numattn similarity: the model reads 24 tokens of a text; left out: "
    assert main(["similarity", "dog", long, *model]) == 0
    assert capsys.readouterr().err == f"{start}8 of text 2\n"
    assert main(["similarity", long, long, *model]) == 0
    assert capsys.readouterr().err == f"{start}8 of text 1, 8 of text 2\n"
    assert main(["similarity", "--query", long, "dog", "mat", long, *model]) == 0
    assert capsys.readouterr().err == f"{start}8 of query 1\n{start}8 of text 3\n"


def test_scores_are_aligned() -> None:
    best = [
        similarity.Found(12.5, 0, "a\tb"),
        similarity.Found(-3.25, 1, "東京の天気は晴れです" * 3),
    ]
    assert similarity.rows_of(best, None)[0] == "12.5000  a b"
    assert [len(row.split()[0]) for row in similarity.rows_of(best, None)] == [7, 7]
    rows = similarity.rows_of(best, 40)
    assert rows[1].endswith("…") and similarity.rows_of([], None) == []


def test_what_is_refused(
    capsys: pytest.CaptureFixture[str],
    golden: dict[str, Any],
    lines: Path,
    bert_folder: Path,
    tmp_path: Path,
) -> None:
    made(golden, tmp_path / "two", "Bert")
    empty, latin = tmp_path / "empty.txt", tmp_path / "latin.txt"
    empty.touch()
    latin.write_bytes(b"a\ncaf\xe9\n")
    query = ["--query", "a", "--model", bert_folder]
    for arguments, message in [
        (["a"], "give two texts; or --query TEXT, and what it is compared with"),
        (["a", "b", "c"], "give two texts"),
        (["--file", lines], "give two texts"),
        ([*query, "--file", empty], "empty.txt has no line"),
        ([*query, "--file", latin], "latin.txt is not UTF-8: "),
        ([*query, "--file", tmp_path / "none"], "No such file"),
        ([*query, "--file", lines, "b"], "give texts, or --file, and not both"),
        ([*query, "b", "--image", lines], "not allowed with argument"),
        ([*query, "b", "--top", "0"], "must be a whole number from 1 on, not '0'"),
        (["a", "b", "--model", tmp_path / "two"], "a classifier of 2 labels, which gives two"),
        (["b", "--image", lines, "--model", bert_folder], "a Bert, which compares texts alone"),
    ]:
        assert message in refused(capsys, "similarity", *arguments)


def test_a_score_that_is_none(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.full((1, 32), np.nan, np.float32)
    monkeypatch.setattr(Bert, "encode_tokens", lambda *rest, **options: nothing)
    message = refused(capsys, "similarity", "--query", "a", "b", "--model", bert_folder)
    assert "text 1 gets nan, which is no score" in message


def test_a_reader_that_leaves_and_ctrl_c(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = command("similarity", "--query", "a", "--top", 5000, "--json", "--model", bert_folder)
    script = f"set -o pipefail; yes 'a cat' | head -5000 | {' '.join(words)} | head -1"
    process = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (1, "")
    assert json.loads(process.stdout)["index"] == 0

    def interrupted(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(similarity, "found_of", interrupted)
    assert main(["similarity", "a", "b", "--model", str(bert_folder)]) == 130
    assert capsys.readouterr() == ("", "")
