"""How many files a feature touches: the room that each noun has, counted.

What is counted are the files that would change for another feature of that kind: those that
*define* it, on the way from the keyword to the register, and the tables that tests take their cases
from. Not counted are those that *use* what is there: a cache that keeps as many keys as a window
sees, a decoder whose configuration has a sliding window, the ONNX operator that has one too, the
C interface, in which an argument has its place only when somebody wants it there. Nor are words:
docstrings and comments may speak of a window anywhere.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CPP, PYTHON, TESTS = ROOT / "cpp", ROOT / "python" / "numattn", ROOT / "tests"

pytestmark = pytest.mark.skipif(not CPP.is_dir(), reason="tests run without the sources")

USERS = {"cache", "models", "compat", "cli"}

# Clients of the C++ interface, whose structs hold some of its arguments, and of the C interface.
CLIENTS = {"cpp/include/numattn.h", "cpp/c/attention.cpp"}
CLIENTS |= {str(path.relative_to(ROOT)) for path in (CPP / "onnxruntime").glob("*.cpp")}

# Makers of masks, whose arguments are words of their own: a pattern's window is no span.
MAKERS = {"python/numattn/patterns.py"}

# Where a storage of weights is defined, which may have the name of one of tokens.
WEIGHTS = {
    "cpp/api/check_linear_state.cpp",
    "cpp/api/linear.cpp",
    "cpp/api/names.cpp",
    "cpp/bind/bind_linear.cpp",
    "cpp/kernels/amx_gemm.h",
    "cpp/kernels/float_products.h",
    "cpp/kernels/group_panels.h",
    "python/numattn/_groups.py",
    "cpp/include/numattn/linear.h",
    "cpp/kernels/integer_table.h",
    "cpp/kernels/panel.h",
    "cpp/kernels/panel_format.h",
    "python/numattn/_dtypes.py",
    "python/numattn/reference/linear.py",
    "python/numattn/reference/storage.py",
}


def python_code(text: str) -> str:
    """Return the text without comments and docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    kept = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type != tokenize.COMMENT and token.start[0] not in lines
    ]
    return " ".join(kept)


def cpp_code(text: str) -> str:
    """Return the text without comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)


def defining_files() -> dict[str, str]:
    """Return the code of each file that may define a feature, by its path from the root."""
    found = {}
    for path in sorted(CPP.rglob("*")):
        if path.suffix in {".h", ".cpp", ".inc"}:
            found[str(path.relative_to(ROOT))] = cpp_code(path.read_text(encoding="utf-8"))
    for path in sorted(PYTHON.rglob("*.py")):
        if path.relative_to(PYTHON).parts[0] not in USERS:
            found[str(path.relative_to(ROOT))] = python_code(path.read_text(encoding="utf-8"))
    for name in ("cases.py", "tolerance.py"):
        found[f"tests/{name}"] = python_code((TESTS / name).read_text(encoding="utf-8"))
    return found


def touched(word: str) -> list[str]:
    return [path for path, code in defining_files().items() if re.search(word, code, re.IGNORECASE)]


@pytest.mark.parametrize(
    ("word", "most", "some"),
    [
        # A span: what leaves each query an interval of keys.
        (r"\bwindow(?!s\b|_mask\b)", 7, "python/numattn/_score.py"),  # not those of images
        # A step that changes a score.
        ("softcap", 9, "cpp/kernels/score_steps.h"),
        # An element type of stored keys and values: four of them a `load` of each register type.
        (r"\bk?int8\b", 8, "cpp/include/numattn/dtype.h"),
    ],
)
def test_a_feature_touches_few_files(word: str, most: int, some: str) -> None:
    files = [path for path in touched(word) if path not in WEIGHTS | MAKERS | CLIENTS]
    assert some in files, "the search finds nothing"
    assert len(files) <= most, files


def test_a_cache_storage_touches_two_files() -> None:
    """A row of FORMATS, and the tests' table: nothing else knows one by its name."""
    named = r"""["']int8["']"""
    files = [str(path.relative_to(ROOT)) for path in (PYTHON / "cache").glob("*.py")]
    codes = {name: python_code((ROOT / name).read_text(encoding="utf-8")) for name in files}
    codes |= {
        name: code
        for name, code in defining_files().items()
        if name.endswith(".py") and name not in WEIGHTS
    }
    found = {name for name, code in codes.items() if re.search(named, code)}
    assert found == {"python/numattn/_quantize.py", "tests/cases.py"}


def test_a_storage_of_weights_touches_its_own_room() -> None:
    """Beside the kernels of its own, every place that knows formats of weights by name."""
    assert set(touched(r"\bk?int8\b")) >= WEIGHTS, "a file that is no longer among them"
