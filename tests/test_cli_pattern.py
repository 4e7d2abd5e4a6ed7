"""`numattn attend --pattern`: what a pattern lists, and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import numattn as na
from command_line import refused
from numattn.cli import main
from numattn.cli.pattern import read_pattern, shares


@pytest.mark.parametrize(
    ("words", "mask"),
    [
        ("longformer:400,64,1", na.patterns.longformer(400, 64, 1)),
        ("bigbird:800,64,3", na.patterns.bigbird(800, 64, 3)),
        ("strided:300,128", na.patterns.strided(300, 128)),
        ("dilated:300,8,2", na.patterns.dilated(300, 8, 2)),
        ("tree:-1,0,0", na.patterns.tree([-1, 0, 0])),
    ],
)
def test_a_pattern_by_its_words(
    words: str, mask: na.BlockMask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_pattern(words) == mask
    assert main(["attend", "--pattern", words]) == 0
    assert capsys.readouterr().out == f"{mask!r}\n"


def test_how_much_is_seen_of_each_block() -> None:
    dense = np.tri(256, dtype=bool)
    seen = shares(na.BlockMask.from_mask(dense))
    assert np.array_equal(seen, dense.reshape(4, 64, 4, 64).mean(axis=(1, 3)))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"pattern{suffix}"
    assert main(["attend", "--pattern", "longformer:1000,64,1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"{out}: the pattern\n")
    content = out.read_bytes()
    assert content.startswith(b"\x89PNG") if suffix == ".png" else b"<svg" in content


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SENTENCE and --word are required, or --pattern"),
        (["a cat"], "SENTENCE and --word are required, or --pattern"),
        (["a cat", "--pattern", "tree:-1"], "--pattern takes neither SENTENCE nor --word"),
        (["--pattern", "causal:8"], "must begin with one of longformer, bigbird, strided"),
        (["--pattern", "longformer"], "must be longformer: and whole numbers with commas"),
        (["--pattern", "longformer:8,x"], "must be longformer: and whole numbers with commas"),
        (["--pattern", "longformer:8"], "--pattern longformer:8: "),
        (["--pattern", "strided:8,0"], "stride must be 1 or more, not 0"),
        (["--pattern", "tree:-1", "--out", "map.gif"], "must end with one of"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "attend", *arguments)
    assert not list(tmp_path.iterdir())
