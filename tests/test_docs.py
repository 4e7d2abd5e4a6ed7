"""The Python of the README and of every page of docs/ runs as it stands; the reference is whole.

The blocks of a page run one after the other, with the names of those before: those of the README
each by itself. A block that cannot run here says so to its readers, who see it as its title:
```python title="not run: …".
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import numattn as na
import numattn.compat
from docs_pages import PREPARED, Names

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r'python title="not run: .+"')
PEERS = ("keras", "onnx", "openai", "torch", "transformers")


def fences(page: str) -> list[tuple[str, str]]:
    """Return what stands after a page's fences, and what stands within."""
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


def blocks(page: str) -> list[str]:
    return [text for info, text in fences(page) if info == "python"]


WITH_BLOCKS = [page for page in PAGES if blocks(page)]


def test_there_are_pages() -> None:
    assert len(WITH_BLOCKS) >= 9 and set(PREPARED) <= set(WITH_BLOCKS)


@pytest.mark.parametrize("page", PAGES)
def test_python_is_run_or_says_that_it_is_not(page: str) -> None:
    for info, text in fences(page):
        if info.startswith("python"):
            assert info == "python" or NOT_RUN.fullmatch(info), info
        elif not info:
            assert not re.search(r"^(>>> )?(from|import) \w+", text, re.MULTILINE), text


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = PREPARED[page](tmp_path) if page in PREPARED else nullcontext({})
    missing: set[str] = set()
    with prepared as names:
        replaced: dict[str, str] = names.pop("replaced", {})
        assert all(any(old in block for block in blocks(page)) for old in replaced)
        for number, block in enumerate(blocks(page)):
            lacking = {peer for peer in imports(block) if find_spec(peer) is None}
            missing |= lacking
            if not lacking:
                for old, new in replaced.items():
                    block = block.replace(old, new)
                run(block, {} if page == "README.md" else names, f"{page}[{number}]")
    if missing:
        pytest.skip(f"the other blocks run; some need {', '.join(sorted(missing))}")


def imports(block: str) -> set[str]:
    """Return the peers that a block imports."""
    lines = re.findall(r"^(?:>>> )?(?:import|from) .*", block, re.MULTILINE)
    return {peer for peer in PEERS for line in lines if re.search(rf"[ ,]{peer}\b", line)}


def run(block: str, names: Names, place: str) -> None:
    """Run a script, or a session, which must print what it says."""
    if not block.startswith(">>>"):
        exec(compile(block, place, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(block, {}, place, place, 0)
    test.globs = names
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=printed.append, clear_globs=False)
    assert result.attempted > 0
    assert result.failed == 0, "".join(printed)


# --- the reference --------------------------------------------------------------------------------


def documented() -> set[str]:
    """Return the names that docs/reference has a place for: of a module, all that it exports."""
    found: set[str] = set()
    for page in ROOT.glob("docs/reference/*.md"):
        for path in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, _, name = path.rpartition(".")
            try:
                thing = importlib.import_module(path)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), name), path
                found.add(path)
            else:
                found |= {path, *(f"{path}.{each}" for each in getattr(thing, "__all__", ()))}
    return found


def test_everything_public_is_in_the_reference() -> None:
    found = documented()
    names = {path.rpartition(".")[2] for path in found}
    for name in set(na.__all__) - {"__version__"}:
        if isinstance(getattr(na, name), ModuleType):
            assert f"numattn.{name}" in found
        else:
            assert name in names
    for module in pkgutil.iter_modules(numattn.compat.__path__, "numattn.compat."):
        assert module.name in found
    assert "numattn.models" in found
