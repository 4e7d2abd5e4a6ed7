"""The picture of `numattn attend`: fonts, directions, and nobody else's settings."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from command_line import command
from numattn.cli import fonts, main
from numattn.cli.direction import direction, first_strong, visual_order
from numattn.cli.picture import AttentionMap, Box, draw, draw_figure, in_reading_order
from numattn.cli.words import Word

matplotlib = pytest.importorskip("matplotlib")
font_manager = pytest.importorskip("matplotlib.font_manager")


def map_of(sentence: str, looks_at: str = "cat") -> AttentionMap:
    """Return the map of a sentence of words, each one token, of which the first attends."""
    parts, start = [], 0
    for index, text in enumerate(sentence.split(" ")):
        parts.append(Word(text, (index,), (start, start + len(text)), True))
        start += len(text) + 1
    count = len(parts)
    return AttentionMap(
        sentence=sentence,
        tokens=[part.text for part in parts],
        parts=parts,
        word=parts[0],
        weights=np.full((count, count), 1 / count, np.float32),
        title=f"“{parts[0].text}” looks at “{looks_at}”",
        subtitle="with 50% of its attention",
    )


def bundled_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matplotlib have no fonts but its own, as on a machine without any."""
    manager = font_manager.fontManager
    own = [entry for entry in manager.ttflist if "mpl-data" in str(entry.fname)]
    assert own
    monkeypatch.setattr(manager, "ttflist", own)


def test_a_font_that_has_the_sign_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among matplotlib's own: that of TeX's letters has no Cyrillic ones."""
    bundled_only(monkeypatch)
    assert fonts.families_for("a cat, “ä”") == (["DejaVu Sans"], "")
    monkeypatch.setattr(fonts, "FIRST", "cmr10")
    families, missing = fonts.families_for("a я")
    assert families[0] == "cmr10" and len(families) == 2 and missing == ""
    assert "Sans" in families[1]
    content, lacks = draw(map_of("a я"), ".svg")
    assert lacks == []
    drawn = {match.decode() for match in re.findall(rb'<path id="([A-Za-z]+\w*)-', content)}
    assert {name.lower() for name in drawn} >= {"cmr10", families[1].replace(" ", "").lower()}


def test_a_sign_that_no_font_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled_only(monkeypatch)
    assert fonts.families_for("東 a\u200d\ue000 क東") == (["DejaVu Sans"], "क東")
    _, lacks = draw(map_of("東 cat"), ".png")
    assert lacks == [
        "no installed font has 東 (CJK UNIFIED IDEOGRAPH-6771); "
        "on Debian: apt install fonts-noto-cjk"
    ]
    assert fonts.advice("कก한東京").endswith(
        "(HANGUL SYLLABLE HAN) and 2 more signs; "
        "on Debian: apt install fonts-noto-cjk fonts-noto-core"
    )


@pytest.mark.parametrize(
    ("text", "region"),
    [("東京", "SC"), ("東京は", "JP"), ("東京 タワー", "JP"), ("한국 東", "KR"), ("a", "SC")],
)
def test_chinese_characters_have_the_forms_usual_for_the_text(text: str, region: str) -> None:
    assert fonts.region_of(text) == region


def test_an_installed_font_draws_chinese() -> None:
    families, missing = fonts.families_for("東京は")
    if missing:
        pytest.skip("no installed font has Chinese and Japanese characters")
    content, lacks = draw(map_of("東京は cat"), ".svg")
    assert lacks == []
    names = {match.decode() for match in re.findall(rb'<path id="([\w-]+)-[0-9a-f]+"', content)}
    assert any(not name.startswith(("DejaVu", "LastResort")) for name in names)
    assert not any(name.startswith("LastResort") for name in names)
    assert families[0] == "DejaVu Sans"


@pytest.mark.skipif(
    not hasattr(matplotlib.ft2font, "__libraqm_version__"), reason="matplotlib before 3.11"
)
def test_a_title_of_right_to_left_words_reads_from_the_left() -> None:
    """Hebrew letters are the same wherever they stand: they can be placed one by one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def pixels(text: str) -> NDArray[np.uint8]:
        figure = Figure(figsize=(8, 1))
        figure.text(0.1, 0.3, text, size=20)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba())

    title = draw_figure(map_of("אבג cat", looks_at="דהו")).axes[0].texts[0].get_text()
    placed = "\u202d“גבא” looks at “והד”\u202c"  # every letter to the right of the one before
    np.testing.assert_array_equal(pixels(title), pixels(placed))
    # Of a font without these letters, or without directions, that would hold too.
    assert not np.array_equal(pixels(title), pixels("\u202d“אבג” looks at “דהו”\u202c"))
    english = draw_figure(map_of("a cat")).axes[0].texts[0].get_text()
    assert english == "“a” looks at “cat”"


def test_an_old_matplotlib_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(matplotlib.ft2font, "__libraqm_version__", raising=False)
    for sentence, count in (("a café", 0), ("אבג cat", 1), ("का cat", 1)):
        _, lacks = draw(map_of(sentence), ".svg")
        assert len([text for text in lacks if "from 3.11 on" in text]) == count


@pytest.mark.parametrize(
    ("text", "of_letter", "of_word"),
    [
        ("cat", "L", "L"),
        ("אב", "R", "R"),
        ("سلام", "R", "R"),
        ("25", "", "L"),
        ("٢٥", "", "L"),
        ("3א", "R", "R"),
        ("“", "", ""),
        ("", "", ""),
    ],
)
def test_directions(text: str, of_letter: str, of_word: str) -> None:
    assert first_strong(text) == of_letter
    assert direction(text) == of_word


@pytest.mark.parametrize(
    ("texts", "base", "shown"),
    [
        ("a b , c .", "L", "a b , c ."),
        ("א ב , ג .", "R", ". ג , ב א"),
        ("a א , ב . b", "L", "a ב , א . b"),
        ("א 2 5 ב", "R", "ב 2 5 א"),
        ("א new - york , ב .", "R", ". ב , new - york א"),
        ("a א", "L", "a א"),
        (", .", "R", ". ,"),
    ],
)
def test_the_order_of_words_on_a_line(texts: str, base: str, shown: str) -> None:
    words = texts.split()
    assert [words[index] for index in visual_order(words, base)] == shown.split()


def test_a_right_to_left_sentence_begins_at_the_right() -> None:
    texts = ["אב", "ג", ".", "דה"]
    word = Word("", (0,), (0, 1), True)
    boxes = [
        Box(word, texts[0], 0.1, 1.0, 0),
        Box(word, texts[1], 1.3, 0.5, 0),
        Box(word, texts[2], 1.84, 0.25, 0),
        Box(word, texts[3], 0.0, 2.0, 1),
    ]
    moved = in_reading_order(boxes, "R", 10.0)
    places = {box.text: (box.x, box.x + box.width, box.line) for box in moved}
    # The gaps between neighbours are what they were, and each line ends where it began.
    assert places["אב"] == pytest.approx((9.0, 10.0, 0))
    assert places["ג"] == pytest.approx((8.3, 8.8, 0))
    assert places["."] == pytest.approx((8.01, 8.26, 0))
    assert places["דה"] == pytest.approx((8.0, 10.0, 1))
    english = [
        Box(word, "a", 0.1, 1.0, 0),
        Box(word, ",", 1.14, 0.2, 0),
        Box(word, "b", 0.0, 2.0, 1),
    ]
    assert in_reading_order(english, "L", 10.0) == english


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_settings_of_a_user_change_nothing(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TeX would have to be installed, and would take "$" and "_" for its own."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # no date, and so the same bytes
    before = draw(map_of("cat $_ mat"), suffix)
    settings = {
        "text.usetex": True,
        "font.size": 30,
        "font.family": "cmr10",
        "axes.grid": True,
        "savefig.dpi": 20,
        "text.color": "red",
    }
    with matplotlib.rc_context(settings):
        after = draw(map_of("cat $_ mat"), suffix)
        assert matplotlib.rcParams["text.usetex"] is True
        assert matplotlib.rcParams["savefig.dpi"] == 20
    assert after[1] == before[1] == []
    assert without_names(after[0]) == without_names(before[0])


def without_names(content: bytes) -> bytes:
    """Return an SVG file without the names that are drawn by lot."""
    return re.sub(rb"\b[a-zA-Z]+[0-9a-f]{10}\b", b"", content)


def test_a_setting_of_a_user_s_file_is_not_read(tmp_path: Path, bert_folder: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 20\n")
    arguments = ["attend", "a cat sat", "--word", "cat", "--model", str(bert_folder), "--out"]
    process = subprocess.run(
        command(*arguments, tmp_path / "theirs.png"),
        env={**os.environ, "MATPLOTLIBRC": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0 and process.stderr == ""
    assert main([*arguments, str(tmp_path / "ours.png")]) == 0
    assert (tmp_path / "theirs.png").read_bytes() == (tmp_path / "ours.png").read_bytes()
