"""The README's Python runs as it stands, each block by itself, in a folder of its own."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import tiny_decoders

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
SESSIONS = [block for block in BLOCKS if block.startswith(">>>")]
SCRIPTS = [block for block in BLOCKS if not block.startswith(">>>")]


def test_there_are_both_kinds() -> None:
    assert len(SESSIONS) >= 3 and len(SCRIPTS) >= 2


@pytest.mark.parametrize("session", SESSIONS, ids=range(len(SESSIONS)))
def test_sessions_print_what_they_say(session: str) -> None:
    for peer in ("torch", "transformers"):
        if re.search(rf"import .*\b{peer}\b", session):
            pytest.importorskip(peer)
    test = doctest.DocTestParser().get_doctest(session, {}, "README.md", str(README), 0)
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(printed)


@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_scripts_run(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny model under the name of the one that they load."""
    pytest.importorskip("ml_dtypes")
    for name in re.findall(r'Llama\.from_folder\("([\w-]+)"', script):
        tiny_decoders.write_folder(tmp_path / name, "llama")
    monkeypatch.chdir(tmp_path)
    exec(compile(script, str(README), "exec"), {})
