"""`numattn attend`: words, tokens, the choice of a head, and the picture."""

from __future__ import annotations

import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from command_line import refused
from numattn.cli import main
from numattn.cli.attend import Look, neighbour_heads, strongest_looks
from numattn.cli.words import Word
from numattn.models import Bert

SENTENCE = "The animal didn't cross the street because it was too tired."


def size_of_png(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_attend_draws_and_prints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    assert main(["attend", SENTENCE, "--word", "it", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith('"it", in layer ') and printed[0].endswith(" looks at")
    weight, target = printed[1].split()
    assert float(weight) > 0.5 and target in SENTENCE
    assert printed[-1] == f"{out}: the attention map"
    width, height = size_of_png(out)
    assert 800 < width < 3000 and 800 < height < 3000
    assert 20_000 < out.stat().st_size < 1_000_000
    assert list(tmp_path.iterdir()) == [out]


def test_attend_finds_the_head_that_looks_at_a_word(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """MiniLM has a head that knows what "it" stands for."""
    out = str(tmp_path / "map.png")
    assert main(["attend", SENTENCE, "--word", "it", "--at", "animal", "--out", out]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == '"it", in layer 3, head 1 (counted from 0) looks at'
    assert printed[1] == "  0.677  animal"
    # The head of the previous token gives "because" a weight of 1, and is left aside.
    assert printed[-2].startswith("left aside") and "layer 0 head 2" in printed[-2]


def test_attend_draws_a_neighbour_head_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "map.png")
    arguments = ["attend", SENTENCE, "--word", "it", "--layer", "0", "--head", "2", "--out", out]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "  1.000  because"
    assert "left aside" not in "".join(printed)


def test_attend_of_a_layer_and_head(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path, bert: Bert
) -> None:
    out = str(tmp_path / "map.png")
    sentence = "the cat sat on it"
    ids = bert.tokenizer.encode(sentence).ids
    for layer, head in [(0, 0), (1, 3)]:
        arguments = ["attend", sentence, "--word", "cat", "--out", out, "--model", str(bert_folder)]
        assert main([*arguments, "--layer", str(layer), "--head", str(head)]) == 0
        printed = capsys.readouterr().out
        assert f"layer {layer}, head {head} " in printed
        row = bert.attention_weights(ids, layer, head)[2]
        assert f"  {row.max():.3f}  " in printed.splitlines()[1]


def test_attend_with_a_word_of_several_tokens(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path, bert: Bert
) -> None:
    out = tmp_path / "map.svg"
    sentence = "the unbelievable cat sat"
    arguments = ["attend", sentence, "--word", "Unbelievable", "--out", str(out)]
    assert main([*arguments, "--layer", "1", "--head", "2", "--model", str(bert_folder)]) == 0
    printed = capsys.readouterr().out
    assert '"unbelievable", the mean of its 3 tokens, in layer 1, head 2' in printed
    ids = bert.tokenizer.encode(sentence).ids
    row = bert.attention_weights(ids, 1, 2)[2:5].mean(axis=0)
    listed = {line.split()[1]: float(line.split()[0]) for line in printed.splitlines()[1:7]}
    # Printed with three decimals.
    assert listed["unbelievable"] == pytest.approx(row[2:5].sum(), abs=5.1e-4)
    assert listed["cat"] == pytest.approx(row[5], abs=5.1e-4)
    assert b"<svg" in out.read_bytes()


def test_attend_says_what_the_model_does_not_see(
    capsys: pytest.CaptureFixture[str], bert_folder: Path
) -> None:
    arguments = ["--word", "cat", "--model", str(bert_folder)]
    for sentence, notes in [
        ("the cat sat", []),
        ("cat zorp 東 . zorp", ["zorp, 東"]),
        ("cat " + "dog " * 30, ["the model reads 24 tokens of the sentence; left out: 9"]),
        # The last word that is left out is unknown too, but was not to be seen.
        ("zorp cat " + "dog " * 30 + "blah", ["left out: 11", "of the word: zorp"]),
    ]:
        assert main(["attend", sentence, *arguments]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(notes)
        for line, text in zip(lines, notes, strict=True):
            assert line.startswith("numattn attend: ") and line.endswith(text)


def test_attend_says_how_it_took_a_word(
    capsys: pytest.CaptureFixture[str], bert_folder: Path
) -> None:
    for sentence, word, taken, said in [
        ("The cat sat on the mat", "the", "the", "'the' is taken as spelled; there is also The"),
        ("The cat sat", "the", "The", "'the' is not there as spelled; taken for 'The'"),
        ("The cat sat", "The", "The", ""),
        ("The cat sat", "cat", "cat", ""),
    ]:
        assert main(["attend", sentence, "--word", word, "--model", str(bert_folder)]) == 0
        printed = capsys.readouterr()
        assert printed.err == (f"numattn attend: {said}\n" if said else "")
        assert printed.out.startswith(f'"{taken}"')


def test_attend_without_a_picture(
    capsys: pytest.CaptureFixture[str],
    bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The same lines but for the picture's, and matplotlib need not be there."""
    arguments = ["attend", "the cat sat", "--word", "cat", "--model", str(bert_folder)]
    assert main([*arguments, "--out", str(tmp_path / "map.svg")]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.endswith("map.svg: the attention map")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == lines
    message = refused(capsys, *arguments, "--out", tmp_path / "map.png")
    assert "pip install 'numattn[plot]'" in message


def test_attend_with_several_words(
    capsys: pytest.CaptureFixture[str], bert_folder: Path, bert: Bert
) -> None:
    """Their rows are averaged, and the columns of those looked at added."""
    sentence = "the cat sat on the mat"
    arguments = ["attend", sentence, "--word", "the cat", "--at", "the  mat", "--layer", "0"]
    assert main([*arguments, "--head", "1", "--model", str(bert_folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    row = bert.attention_weights(bert.tokenizer.encode(sentence).ids, 0, 1)[1:3].mean(axis=0)
    assert '"the cat", the mean of its 2 tokens, in layer 0, head 1' in printed[0]
    listed = {text: float(weight) for weight, text in (line.split(None, 1) for line in printed[1:])}
    assert listed["the mat"] == pytest.approx(row[5:7].sum(), abs=5.1e-4)
    assert listed["the cat (itself)"] == pytest.approx(row[1:3].sum(), abs=5.1e-4)
    assert set(listed) == {"[CLS]", "[SEP]", "the cat (itself)", "sat", "on", "the mat"}


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("Un café noir", "cafe\u0301"),
        ("Un cafe\u0301 noir", "café"),
        ("यह हिन्दी भाषा है", "हिन्दी"),
        ("הילד אמר שָׁלוֹם לכולם", "שָׁלוֹם"),
        ("We co\u00adoperate today", "cooperate"),
        ("We co\u00adoperate today", "co\u00adoperate"),
        ("من می\u200cخواهم بروم", "می\u200cخواهم"),
        ("我 去 北京", "北京"),
    ],
)
def test_attend_finds_words_of_any_script(
    capsys: pytest.CaptureFixture[str], sentence: str, word: str
) -> None:
    """With the real model, whose tokenizer leaves accents and invisible signs out."""
    assert main(["attend", sentence, "--word", word]) == 0
    shown = capsys.readouterr().out.split('"')[1]
    visible = unicodedata.normalize("NFC", shown.replace("\u00ad", ""))
    assert visible == unicodedata.normalize("NFC", word.replace("\u00ad", ""))


def test_attend_refuses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, bert_folder: Path
) -> None:
    out = tmp_path / "map.png"
    for sentence, options, message in [
        ("a cat sat", ["--word", "dog"], "'dog' is no word of the sentence; its words are: a, cat"),
        ("", ["--word", "dog"], "its words are: none"),
        ("caf\udce9 cat", ["--word", "cat"], "is not Unicode"),
        ("cat .", ["--word", "cat"], "the sentence has no other word than 'cat'"),
        ("a cat", ["--word", "cat", "--nth", "2"], "the sentence has 'cat' 1 times, not 2"),
        ("a cat", ["--word", "cat", "--at", "mat"], "'mat' is no word of the sentence"),
        ("a cat sat", ["--word", "cat", "--at", "Cat"], "--at 'Cat' is the word that attends"),
        ("dog " * 30 + "cat", ["--word", "cat"], "'cat' is not among the tokens that"),
        ("a cat", ["--word", "cat", "--layer", "2"], "layer must be in 0 … 1, not 2"),
        ("a cat", ["--word", "cat", "--head", "4"], "head must be in 0 … 3, not 4"),
        ("a cat", ["--word", "cat", "--head", "x"], "must be a whole number from 0 on, not 'x'"),
    ]:
        message_given = refused(
            capsys, "attend", sentence, *options, "--out", out, "--model", bert_folder
        )
        assert message in message_given
    message = refused(capsys, "attend", "a cat", "--word", "cat", "--out", tmp_path / "map.gif")
    assert "map.gif must end with one of .png, .svg, .pdf" in message
    assert list(tmp_path.iterdir()) == []


def test_the_strongest_look_adds_the_tokens_of_its_target() -> None:
    maps = np.zeros((2, 1, 4, 4), np.float32)
    maps[0, 0, 0] = [0.1, 0.5, 0.2, 0.2]
    maps[1, 0, 0] = [0.0, 0.3, 0.35, 0.35]
    word, first, second = (
        Word("a", (0,), (0, 1), True),
        Word("b", (1,), (2, 3), True),
        Word("cd", (2, 3), (4, 6), True),
    )
    looks = strongest_looks(maps, word, [first, second], (5, 7))
    assert [look[1:] for look in looks] == [(6, 7, second), (5, 7, first)]
    assert [look.weight for look in looks] == pytest.approx([0.7, 0.5])
    assert isinstance(looks[0], Look)


def test_heads_that_look_at_the_neighbour_are_known() -> None:
    count = 6
    maps = np.full((1, 4, count, count), 1 / count, np.float32)
    maps[0, 1] = np.eye(count, k=-1)
    maps[0, 2] = np.eye(count, k=1)
    maps[0, 3] = np.eye(count)
    special = [1, 0, 0, 0, 0, 1]
    assert neighbour_heads(maps, special, (0, 0)) == {(0, 1), (0, 2)}
    assert neighbour_heads(maps[:, 2:3], special, (4, 2)) == {(4, 2)}
    # Of two or three tokens nobody can tell.
    assert neighbour_heads(maps, [1, 1, 0, 0, 0, 1], (0, 0)) == set()
