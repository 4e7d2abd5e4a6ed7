"""`numattn embed --json`, and what vectors are scaled to and computed with."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numattn.cli.embed as embed
from command_line import command, refused
from numattn.cli import main
from numattn.cli.json_lines import vector_line
from numattn.cli.lines import CHUNK, arriving
from numattn.models import Bert
from tolerance import assert_same_bits

LINES = ["the cat sat", "", "a dog ran , and ran", "it was unbelievable", "", "mat"]


def vectors_of(text: str) -> np.ndarray[Any, Any]:
    """Return the vectors of JSON lines, whose numbers must count from 0."""
    found = [json.loads(line) for line in text.splitlines()]
    assert [each.pop("index") for each in found] == [*range(len(found))]
    assert all(set(each) == {"embedding"} for each in found)
    return np.array([each["embedding"] for each in found], dtype=np.float32)


def test_texts(capsys: pytest.CaptureFixture[str], bert_folder: Path, bert: Bert) -> None:
    """As many as one likes, and with the bits that encode() gives."""
    texts = [f"the cat sat on {number} dogs" for number in range(20)]
    assert main(["embed", *texts, "--json", "--model", str(bert_folder)]) == 0
    assert_same_bits(vectors_of(capsys.readouterr().out), bert.encode(texts))


@pytest.mark.parametrize("piece", [2, 4096])
def test_a_file_into_a_file(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bert_folder: Path,
    bert: Bert,
    monkeypatch: pytest.MonkeyPatch,
    piece: int,
) -> None:
    monkeypatch.setattr(embed, "PIECE_LINES", piece)
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.jsonl"
    source.write_text("\n".join(LINES), encoding="utf-8")
    arguments = ["embed", "--file", source, "--json", "--out", out, "--model", bert_folder]
    assert main([str(each) for each in arguments]) == 0
    assert_same_bits(vectors_of(out.read_text()), bert.encode(LINES))
    assert capsys.readouterr().out == f"{out}: 6 × 32 numbers, as JSON\n"


def test_an_empty_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path
) -> None:
    source = tmp_path / "lines.txt"
    source.touch()
    assert main(["embed", "--file", str(source), "--json", "--model", str(bert_folder)]) == 0
    assert capsys.readouterr().out == ""


def test_lines_are_answered_as_they_come(bert_folder: Path, bert: Bert) -> None:
    """Before the next is written, and before the end of standard input."""
    with subprocess.Popen(
        command("embed", "--json", "--model", bert_folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        answers = ""
        for text in ("a cat", "dog"):
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            answers += process.stdout.readline()
        process.stdin.write("mat")
        process.stdin.close()
        answers += process.stdout.read()
    assert process.returncode == 0
    assert_same_bits(vectors_of(answers), bert.encode(["a cat", "dog", "mat"]))


def test_what_is_not_utf_8(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bert_folder: Path
) -> None:
    """Lines before it are answered; a file is read beforehand, so that there nothing is."""
    stdin = io.TextIOWrapper(io.BytesIO(b"a cat\ndog\ncaf\xe9\nmat\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["embed", "--json", "--model", str(bert_folder)]) == 2
    printed = capsys.readouterr()
    assert vectors_of(printed.out).shape == (2, 32)
    assert printed.err == (
        "numattn embed: error: standard input is not UTF-8: invalid continuation byte, in line 3\n"
    )


def test_a_file_that_is_not_utf_8_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path
) -> None:
    source, out = tmp_path / "latin.txt", tmp_path / "out.jsonl"
    source.write_bytes(b"a cat\ndog\ncaf\xe9\nmat\n")
    arguments = ("--file", source, "--json", "--model", bert_folder)
    message = "latin.txt is not UTF-8: invalid continuation byte, in line 3"
    assert message in refused(capsys, "embed", *arguments)
    assert "latin.txt is not UTF-8" in refused(capsys, "embed", *arguments, "--out", out)
    assert "no folder" in refused(capsys, "embed", *arguments, "--out", tmp_path / "none" / "out")
    assert os.listdir(tmp_path) == ["latin.txt"]


def test_a_reader_that_leaves_early(tmp_path: Path, bert_folder: Path) -> None:
    source = tmp_path / "lines.txt"
    source.write_text("a cat\n" * 5000)
    words = " ".join(command("embed", "--json", "--file", source, "--model", bert_folder))
    script = f"set -o pipefail; {words} | head -1"
    process = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (1, "")
    assert vectors_of(process.stdout).shape == (1, 32)


def test_ctrl_c_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(embed, "embed_piece", interrupted)
    out = tmp_path / "out.jsonl"
    arguments = ["embed", "a cat", "--json", "--out", str(out), "--model", str(bert_folder)]
    assert main(arguments) == 130
    assert os.listdir(tmp_path) == [] and capsys.readouterr() == ("", "")


def test_vectors_that_are_not_scaled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path, bert: Bert
) -> None:
    """In all forms; scaled they are by default."""
    texts, out = ["a cat", "the dog ran"], tmp_path / "vectors.npy"
    own, scaled = bert.encode(texts, normalize=False), bert.encode(texts)
    assert not np.allclose(own, scaled)
    for option, expected in [("--no-normalize", own), ("--normalize", scaled)]:
        arguments = ["embed", *texts, option, "--model", str(bert_folder)]
        assert main([*arguments, "--json"]) == 0
        assert_same_bits(vectors_of(capsys.readouterr().out), expected)
        assert main([*arguments, "--out", str(out)]) == 0
        assert_same_bits(np.load(out), expected)
        capsys.readouterr()
        assert main(arguments) == 0
        rows = capsys.readouterr().out.splitlines()[1:]
        table = np.array([[float(value) for value in row.split()[-2:]] for row in rows])
        np.testing.assert_allclose(table, expected @ expected.T, rtol=0, atol=6e-4)
        assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize("size", [1, 2, 6, 100])
def test_texts_at_once(
    capsys: pytest.CaptureFixture[str],
    bert_folder: Path,
    bert: Bert,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    seen: list[int] = []
    whole = Bert._hidden

    def counting(model, ids, sequences, threads):  # type: ignore[no-untyped-def]
        seen.append(sequences.lengths.size)
        return whole(model, ids, sequences, threads)

    monkeypatch.setattr(Bert, "_hidden", counting)
    arguments = ["embed", *LINES, "--json", "--batch-size", str(size)]
    assert main([*arguments, "--model", str(bert_folder)]) == 0
    assert seen == [size] * (6 // size) or (size == 100 and seen == [6])
    assert_same_bits(vectors_of(capsys.readouterr().out), bert.encode(LINES))


def test_batches_that_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "embed", "a", "--batch-size", "9", "--batch-tokens", "8")
    assert "--batch-size 9 and --batch-tokens 8 contradict each other" in message
    assert "from 1 on, not '0'" in refused(capsys, "embed", "a", "--batch-size", "0")


class Slow(io.BufferedReader):
    """A pipe that holds a few bytes at a time."""

    def __init__(self, data: bytes, held: int) -> None:
        super().__init__(io.BytesIO(data))
        self._held = held

    def read1(self, size: int = -1) -> bytes:
        assert size == CHUNK
        return super().read(self._held)


@pytest.mark.parametrize("held", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_that_come_in_pieces(held: int, mark: bytes) -> None:
    """What a line is does not depend on where pieces end."""
    text = " first \r\n\nthird\u2028still third\rfourth €\n  "
    lists = [*arriving(Slow(mark + text.encode(), held), "a pipe", 2)]
    assert [line for each in lists for line in each] == [
        " first ", "", "third\u2028still third", "fourth €", "  "
    ]  # fmt: skip
    assert max(len(each) for each in lists) <= 2
    assert [*arriving(Slow(mark + b"a\n\r", held), "a pipe", 9)][-1][-1:] == [""]
    assert [*arriving(Slow(mark, held), "a pipe", 9)] == []


@pytest.mark.parametrize("held", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("bad", [b"\xe9\n", b"\xe2\x82\n", b"\xe2\x82", b"\xff"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_before_one_that_is_not_utf_8(held: int, bad: bytes, mark: bytes) -> None:
    lines = arriving(Slow(mark + "a\n€\n".encode() + b"ca" + bad, held), "a pipe", 100)
    found: list[str] = []
    with pytest.raises(ValueError, match="a pipe is not UTF-8: .*, in line 3$"):
        for each in lines:
            found += each
    assert found == ["a", "€"]


def test_numbers_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 2000, dtype=np.uint32).view(np.float32)
    vector = bits[np.isfinite(bits)]
    found = np.array(json.loads(vector_line(0, vector))["embedding"], dtype=np.float32)
    assert_same_bits(found, vector)
    with pytest.raises(ValueError, match="index 3 is not finite"):
        vector_line(3, np.array([1, np.nan], np.float32))
