"""The layers of the house, read from includes and imports: who may use whom.

bind, c, onnxruntime → include   api → plan, run, isa, kernels.h, include   isa → kernels.h, include
plan → kernels.h, include      kernels → include      run → the standard library and the system
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CPP = ROOT / "cpp"
PYTHON = ROOT / "python" / "numattn"
SUFFIXES = {".h", ".cpp", ".inc"}

pytestmark = pytest.mark.skipif(not CPP.is_dir(), reason="tests run without the sources")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"][^>"]+[>"])', re.MULTILINE)
STANDARD = re.compile(r"<[a-z_]+>$")  # the headers of C++ have neither slash nor suffix
KERNELS_H = r'"kernels\.h"'
# The system's, and the public header whose functions run/threads.cpp defines.
RUN_HEADERS = r'<(dlfcn|link|mach-o/dyld|pthread|sched|unistd|sys/\w+)\.h>|"numattn/threads\.h"'

FOLDERS = ("include", "api", "plan", "run", "isa", "kernels", "bind", "c", "onnxruntime")


def sources(folder: str) -> list[Path]:
    files = [path for path in (CPP / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(path for path in files if path.is_file())


def code_of(path: Path) -> str:
    """Return the file without comments and string literals, but with its #include lines."""
    text = path.read_text(encoding="utf-8")
    pattern = re.compile(
        r'(?P<include>^\s*#\s*include[^\n]*)|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"',
        re.DOTALL | re.MULTILINE,
    )
    return pattern.sub(lambda match: match.group("include") or " ", text)


def includes(path: Path) -> list[str]:
    return INCLUDE.findall(path.read_text(encoding="utf-8"))


def folder_of(path: Path, include: str) -> str:
    """Return the folder under cpp/ that a quoted include reaches; "?" if it is not found."""
    name = include[1:-1]
    if name.startswith("numattn/"):
        return "include"
    for base in (path.parent, *(CPP / folder for folder in FOLDERS)):
        target = (base / name).resolve()
        if target.is_file() and CPP in target.parents:
            return target.relative_to(CPP).parts[0]
    return "?"


def foreign(path: Path, folders: set[str], others: str) -> list[str]:
    """Return the includes of a file that reach neither those folders nor the standard library."""
    found = []
    for include in includes(path):
        if include.startswith('"'):
            allowed = folder_of(path, include) in folders
        else:
            allowed = STANDARD.match(include) is not None
        if not allowed and not (others and re.fullmatch(others, include)):
            found.append(f"{path.relative_to(ROOT)} includes {include}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_has_sources(folder: str) -> None:
    """Or else the rules below would hold because they look at nothing."""
    assert sources(folder)


@pytest.mark.parametrize(
    ("folder", "folders", "others"),
    [
        ("include", {"include"}, r"<(stddef|stdint|string)\.h>"),  # numattn.h is C
        ("plan", {"include", "plan"}, KERNELS_H),
        ("run", {"run"}, RUN_HEADERS),
        ("isa", {"include", "isa"}, KERNELS_H + r"|<(cpuid|immintrin|unistd|sys/\w+)\.h>"),
        ("kernels", {"include", "kernels"}, r"<([ix]mmintrin|arm_neon)\.h>"),
        ("api", {"include", "api", "plan", "run", "isa"}, KERNELS_H),
        ("bind", {"include", "bind"}, r"<(pybind11/\w+|Python)\.h>"),
        ("c", {"include", "c"}, ""),
        ("onnxruntime", {"include", "onnxruntime"}, r"<dlfcn\.h>"),
    ],
)
def test_includes(folder: str, folders: set[str], others: str) -> None:
    assert [line for path in sources(folder) for line in foreign(path, folders, others)] == []


def matches(folder: str, pattern: str, but_not_in: str = "") -> list[str]:
    """Return where a pattern occurs in the code of a folder's files, comments left out."""
    return [
        f"{path.relative_to(ROOT)}: {match.group().strip()}"
        for path in sources(folder)
        if not (but_not_in and re.fullmatch(but_not_in, path.name))
        for match in re.finditer(pattern, code_of(path), re.MULTILINE)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_is_linked_to_openmp(folder: str) -> None:
    """run/openmp_runtime.cpp alone finds it, by names in strings."""
    assert matches(folder, r"#\s*pragma\s+omp|\bomp_\w+|<omp\.h>|\bGOMP_\w+") == []


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "run"])
def test_openmp_is_run_s_alone(folder: str) -> None:
    assert [path.name for path in sources(folder) if '"openmp_runtime.h"' in includes(path)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"<(vector|string|map|unordered_map|set|list|deque|memory|stdexcept|functional)>",
        r"<(iostream|mutex|thread|atomic|exception|new)>",
        r"\bstd::(vector|string|map|function|unique_ptr|shared_ptr)\b",
        r"\b(throw|try|catch|new)\b|(?<!= )\bdelete\b",  # "= delete" only forbids a function
        r"\b(malloc|calloc|realloc|free|aligned_alloc|posix_memalign)\s*\(",
    ],
)
def test_kernels_neither_allocate_nor_throw(pattern: str) -> None:
    assert matches("kernels", pattern) == []


def test_plan_has_neither_memory_nor_threads() -> None:
    allocation = r"\b(malloc|calloc|free|aligned_alloc)\s*\(|\bnew\b"
    assert matches("plan", allocation + r"|<(thread|mutex|atomic)>") == []


@pytest.mark.parametrize(
    ("folder", "may_throw"),
    [
        ("api", r"check(_\w+)?\.(h|cpp)"),  # every rule about what a caller passes
        ("isa", r"select\.cpp"),  # a name that is not available
        ("run", r"threads\.cpp|scratch\.h"),  # a limit below 1; no memory
        ("c", r"outcome\.cpp"),  # what is no View, for who calls from C
        ("plan", ""),
        ("kernels", ""),
        ("include", ""),
    ],
)
def test_only_the_front_throws(folder: str, may_throw: str) -> None:
    assert matches(folder, r"\bthrow\b", may_throw) == []


def test_bind_throws_for_what_is_no_view_and_for_nothing_else() -> None:
    """Dtypes and numbers of dimensions are NumPy's; shapes and ranges are api/check_*.cpp's."""
    ours = r"throw\s+(?!DTypeError|py::error_already_set|py::import_error)[\w:]+"
    assert matches("bind", ours, r"numpy_view\.(h|cpp)") == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_intrinsics_are_the_kernels_alone(folder: str) -> None:
    pattern = r"\b_mm\d*_\w+|\b__m\d+\w*|\b_tile_\w+|\bv(ld|st)1q?_\w+"
    found = matches(folder, pattern)
    if folder == "kernels":
        assert found != []
        outside = [line for line in found if not re.search(r"/vec/|/isa_\w+\.cpp|/amx\.h", line)]
        assert outside == []
    else:
        assert found == []


def test_every_isa_file_has_its_own_row() -> None:
    """A file isa_<name>.cpp for each row of isa.inc, and the other way round."""
    files = {path.stem.removeprefix("isa_") for path in (CPP / "kernels").glob("isa_*.cpp")}
    rows = re.findall(r"^\s*\w+\(\s*(\w+)", code_of(CPP / "isa" / "isa.inc"), re.MULTILINE)
    assert files == set(rows)


# --- Python ---------------------------------------------------------------------------------------


def imports(path: Path, at_import_only: bool) -> set[str]:
    """Return the top-level modules a file imports; relative imports as ".name".

    With `at_import_only`, what functions import when they are called is left out, and what stands
    under `if TYPE_CHECKING:`.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            names = [module] if module else [alias.name for alias in node.names]
            found.update("." * node.level + name for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def python_files() -> list[Path]:
    return sorted(PYTHON.rglob("*.py"))


def part_of(path: Path) -> str:
    """Return the module or package directly under numattn that a file belongs to."""
    return path.relative_to(PYTHON).parts[0].removesuffix(".py")


OPTIONAL = {"models", "compat", "cli", "serve", "__main__"}  # parts that may use the extras


def third_party(modules: set[str]) -> set[str]:
    names = {name for name in modules if not name.startswith(".")}
    return names - set(sys.stdlib_module_names) - {"numattn", "__future__"}


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(PYTHON)))
def test_the_core_uses_numpy_alone(path: Path) -> None:
    if part_of(path) in OPTIONAL:
        # Extras are imported where they are used, so that the module itself can be imported.
        assert third_party(imports(path, at_import_only=True)) <= {"numpy"}
    else:
        assert third_party(imports(path, at_import_only=False)) <= {"numpy", "ml_dtypes"}
        assert third_party(imports(path, at_import_only=True)) <= {"numpy"}


def test_there_is_python_to_read() -> None:
    parts = {part_of(path) for path in python_files()}
    assert {"__init__", "_attention", "linear", "mha", "isa", "reference", "models", "cli"} <= parts


def test_the_reference_stands_alone() -> None:
    files = [path for path in python_files() if part_of(path) == "reference"]
    inside = {path.stem for path in files}
    for path in files:
        for name in imports(path, at_import_only=False):
            if name.startswith("."):
                assert name.count(".") == 1 and name[1:] in inside, f"{path.name}: {name}"
            else:
                assert name in {"numpy", "__future__"} | set(sys.stdlib_module_names), name


def test_the_core_does_not_know_its_users() -> None:
    """models, compat and cli stand on the public API; nothing below imports them."""
    for path in python_files():
        if part_of(path) in OPTIONAL:
            continue
        names = {name.lstrip(".") for name in imports(path, at_import_only=True)}
        assert not names & OPTIONAL, path.name


# Words and coercions that all of numattn shares, and in what calls are noted down.
SHARED = {"_aligned", "_arguments", "_dtypes", "_names", "_steps"}


def public_names(module: str) -> set[str]:
    """Return what a module of numattn offers: ``__all__``, its own or else its package's."""
    while True:
        names: set[str] | None = getattr(importlib.import_module(module), "__all__", None)
        if names is not None:
            return set(names)
        module = module.rpartition(".")[0]


def inner_names(source: str) -> list[str]:
    """Return what a source imports of numattn below models that is not public."""
    found = []
    modules = set()  # names by which the source knows numattn itself
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {
                alias.asname or "numattn" for alias in node.names if alias.name == "numattn"
            }
            found += [alias.name for alias in node.names if alias.name.startswith("numattn.")]
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        parts = (node.module or "").split(".")
        if parts[0] != "numattn" or parts[1:2] and parts[1] in OPTIONAL | SHARED:
            continue
        known = public_names(".".join(parts)) | OPTIONAL | SHARED
        private = any(part.startswith("_") for part in parts[1:])
        found += [
            f"{node.module}.{alias.name}"
            for alias in node.names
            if private or alias.name not in known
        ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in modules and node.attr not in public_names("numattn") | OPTIONAL:
                found.append(f"{node.value.id}.{node.attr}")
    return found


def test_models_and_compat_use_the_public_api() -> None:
    """What is in an ``__all__``, and the modules that all share. What they are to one another is
    theirs."""
    for path in python_files():
        if part_of(path) in OPTIONAL:
            assert inner_names(path.read_text(encoding="utf-8")) == [], path.name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from numattn import _core", ["numattn._core"]),
        ("from numattn._score import Score", ["numattn._score.Score"]),
        ("from numattn.linear import as_matrix, Linear", ["numattn.linear.as_matrix"]),
        ("from numattn.cache.storage import Tokens", ["numattn.cache.storage.Tokens"]),
        (
            "from numattn.reference.score import final_scores",
            ["numattn.reference.score.final_scores"],
        ),
        ("import numattn.linear", ["numattn.linear"]),
        ("import numattn as na; na._core.attention; na.attention", ["na._core"]),
        ("from numattn._arguments import integers; from numattn.cache import Storage", []),
        ("from numattn import position, reference; from .storage import storage_dtype", []),
    ],
)
def test_the_inside_is_noticed(source: str, found: list[str]) -> None:
    assert inner_names(source) == found


WINGS = ("encoder", "decoders", "encoder_decoder", "translator", "embedder", "vision")


def rooms_used(path: Path) -> set[str]:
    """Return the packages and modules directly under numattn.models that a file there imports."""
    package = ["numattn", *path.relative_to(PYTHON).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = [*names, alias.name]
                if whole[:2] == ["numattn", "models"]:
                    found.add(whole[2])
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("numattn.models") for alias in node.names), path
    return found


@pytest.mark.parametrize("wing", [*WINGS, "files"])
def test_no_wing_of_the_models_knows_another(wing: str) -> None:
    """Wings stand on files/ and on the modules beside it; files/ on none of these.

    load.py, on which nothing stands, names the classes of all wings. embedder/ makes decoders what
    encoder/ has for texts, and stands on both.
    """
    models = PYTHON / "models"
    modules = {path.stem for path in models.glob("*.py")} - {"__init__", "load"}
    allowed = {wing} | modules | ({"files"} if wing in WINGS else set())
    if wing == "embedder":
        allowed |= {"encoder", "decoders"}
    files = sorted((models / wing).glob("*.py"))
    assert len(files) > 2
    for path in files:
        assert rooms_used(path) <= allowed, path.name
    for module in modules:
        assert not rooms_used(models / f"{module}.py") & {*WINGS, "files"}, module
