"""The library for C as others use it: installed, found, compiled against and run.

Everything is compared with float64 NumPy.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import numattn as na
from c_library import (
    EXAMPLES,
    ROOT,
    build,
    configure,
    numbers_in,
    output_of,
    run,
    shared_prefix,
    tool,
)

pytestmark = pytest.mark.slow

STRICT = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SHAPE = (1, 2, 4, 3)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_prefix(tmp_path_factory)


def steps(shape: tuple[int, ...], step: int, modulus: int = 11, divisor: int = 4) -> np.ndarray:
    """Return the numbers of the examples."""
    counted = np.arange(np.prod(shape)) * step % modulus - modulus // 2
    return (counted / divisor).astype(np.float32).reshape(shape)


def triple() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return steps(SHAPE, 7), steps(SHAPE, 5, 13), steps(SHAPE, 3, 7, 2)


def flags(prefix: Path) -> list[str]:
    package = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    return output_of(tool("pkg-config"), "--cflags", "--libs", "numattn", **package).split()


@pytest.fixture(scope="module")
def c_example(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in C, compiled by pkg-config's flags."""
    program = tmp_path_factory.mktemp("c") / "attention"
    source = EXAMPLES / "c" / "attention.c"
    output_of(tool("cc"), "-std=c11", *STRICT, source, *flags(prefix), "-o", program)
    return program


def libraries(prefix: Path) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(prefix / "lib")}


def test_the_example_in_c(c_example: Path, prefix: Path) -> None:
    printed = output_of(c_example, **libraries(prefix))
    o, lse = na.reference.attention(*triple(), is_causal=True, return_lse=True)
    expected = np.concatenate([o, lse[..., None]], -1).ravel()
    np.testing.assert_allclose(numbers_in(printed), expected, atol=2e-6)
    assert "refused: q and k must have the same head dimension: q (1, 2, 4, 3), k" in printed


def test_the_environment_chooses_the_instruction_set(c_example: Path, prefix: Path) -> None:
    """As it does for `import numattn`: what is not there is an error that names it."""
    output_of(c_example, NUMATTN_ISA="scalar", **libraries(prefix))
    refused = run(c_example, NUMATTN_ISA="avx3", **libraries(prefix))
    assert refused.returncode == 1
    assert "NUMATTN_ISA='avx3': instruction set 'avx3' is unknown" in refused.stderr
    assert "available: scalar" in refused.stderr


def test_the_examples_in_cpp(prefix: Path, tmp_path: Path) -> None:
    strict = f"-DCMAKE_CXX_FLAGS={' '.join(STRICT)}"
    done = configure(EXAMPLES / "cpp", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}", strict)
    assert done.returncode == 0, done.stderr
    build(tmp_path)
    weight, x = steps((3, 5), 7).astype(float), steps((2, 5), 5).astype(float)
    gelu = na.reference.gelu(x @ weight.T).ravel()
    np.testing.assert_allclose(numbers_in(output_of(tmp_path / "projection")), gelu, atol=2e-6)
    q, k, v = (steps(SHAPE, step) for step in (7, 5, 3))
    expected = na.reference.attention(q, k, v, window=(1, 0)).ravel()
    np.testing.assert_allclose(numbers_in(output_of(tmp_path / "attention")), expected, atol=2e-6)


def test_the_example_in_rust(prefix: Path, tmp_path: Path) -> None:
    program, folder = tmp_path / "attention", prefix / "lib"
    source = EXAMPLES / "rust" / "attention.rs"
    words = ["--edition", "2021", "-D", "warnings", source, "-L", folder, "-l", "numattn"]
    output_of(tool("rustc"), *words, "-o", program)
    printed = output_of(program, **libraries(prefix))
    expected = na.reference.attention(*triple(), is_causal=True).ravel()
    np.testing.assert_allclose(numbers_in(printed), expected, atol=2e-6)


@pytest.mark.parametrize(("compiler", "standard"), [("cc", "c11"), ("c++", "c++11")])
def test_the_header_alone_compiles(
    prefix: Path, tmp_path: Path, compiler: str, standard: str
) -> None:
    source = tmp_path / ("only.c" if compiler == "cc" else "only.cpp")
    source.write_text("#include <numattn.h>\nint main(void) { return numattn_abi_version(); }\n")
    words = [f"-std={standard}", *STRICT, f"-I{prefix / 'include'}", "-fsyntax-only"]
    output_of(tool(compiler), *words, source)


def test_nothing_but_the_interface_is_exported(prefix: Path) -> None:
    listing = output_of(tool("nm"), "-D", "--defined-only", prefix / "lib" / "libnumattn.so")
    names = {line.split()[-1] for line in listing.splitlines()}
    declared = re.findall(
        r"NUMATTN_API [\w *]*?(numattn_\w+)\(", (ROOT / "cpp/include/numattn.h").read_text()
    )
    assert len(declared) == 16
    assert names == {f"{name}@@NUMATTN_1" for name in declared} | {"NUMATTN_1"}


OPERATORS = """
import sys
import numpy as np
import onnx
import onnxruntime

def value(name):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

node = onnx.helper.make_node("Attention", ["q", "k", "v"], ["y"], domain="numattn")
graph = onnx.helper.make_graph([node], "g", [value(name) for name in "qkv"], [value("y")])
opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("numattn", 1)]
model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(sys.argv[1])
session = onnxruntime.InferenceSession(model.SerializeToString(), options)
x = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
print(session.run(None, {name: x for name in "qkv"})[0].tolist(), "numattn" in sys.modules)
"""


def test_operators_for_onnx_runtime(prefix: Path) -> None:
    """Linked to the library beside them; Python has a part in it only as the program."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    library = prefix / "lib" / "libnumattn_onnxruntime.so"
    listing = output_of(tool("nm"), "-D", "--defined-only", library)
    assert [line.split()[-1] for line in listing.splitlines()] == ["RegisterCustomOps"]
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 4, 3)
    printed = output_of(sys.executable, "-c", OPERATORS, library)
    assert printed.strip() == f"{na.attention(x, x, x).tolist()} False"


def test_the_versions_are_one(prefix: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', text, re.M)
    assert (prefix / "lib" / f"libnumattn.so.{version}").is_file()
    assert os.readlink(prefix / "lib" / "libnumattn.so") == "libnumattn.so.1"
    package = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    said = output_of(tool("pkg-config"), "--modversion", "numattn", **package)
    assert said.strip() == version


PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(user LANGUAGES {languages})
{numattn}
foreach(target numattn::numattn numattn::static numattn::headers)
  if(TARGET ${{target}})
    message(STATUS "has ${{target}}")
  endif()
endforeach()
message(STATUS "version ${{numattn_VERSION}}")
"""


def test_a_project_around_it_needs_no_python(tmp_path: Path) -> None:
    """Even where scikit-build-core builds that project."""
    text = PROJECT.format(languages="CXX", numattn=f"add_subdirectory({ROOT} numattn)")
    (tmp_path / "CMakeLists.txt").write_text(text)
    done = configure(tmp_path, tmp_path / "build", "-DSKBUILD_PROJECT_VERSION=1.2.3")
    assert done.returncode == 0, done.stderr
    assert "has numattn::numattn" in done.stdout and "has numattn::static" in done.stdout
    assert "Python" not in done.stdout
    cache = (tmp_path / "build" / "CMakeCache.txt").read_text()
    assert "NUMATTN_INSTALL:BOOL=OFF" in cache and "NUMATTN_BUILD_PYTHON:BOOL=OFF" in cache


def test_a_project_in_c_alone_finds_it(prefix: Path, tmp_path: Path) -> None:
    text = PROJECT.format(languages="C", numattn="find_package(numattn 0.1 REQUIRED)")
    (tmp_path / "CMakeLists.txt").write_text(text)
    done = configure(tmp_path, tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert done.returncode == 0, done.stderr
    assert "has numattn::numattn" in done.stdout and "version 0.1" in done.stdout


def test_an_unknown_instruction_set_is_not_built(tmp_path: Path) -> None:
    tool("c++")
    done = configure(ROOT, tmp_path, "-DNUMATTN_ISAS=avx3")
    assert done.returncode != 0
    assert "'avx3' is none of scalar" in " ".join(done.stderr.split())  # CMake breaks lines


def test_the_headers_beside_the_python_package(tmp_path: Path) -> None:
    """Those of the wheel, which has no library."""
    tool("cc")
    text = (
        PROJECT.format(languages="C", numattn="find_package(numattn REQUIRED)")
        + """
add_library(user STATIC user.c)
target_link_libraries(user PRIVATE numattn::headers)
"""
    )
    (tmp_path / "CMakeLists.txt").write_text(text)
    (tmp_path / "user.c").write_text(
        "#include <numattn.h>\nint abi(void) { return NUMATTN_ABI_VERSION; }\n"
    )
    done = configure(tmp_path, tmp_path / "build", f"-Dnumattn_DIR={na.get_cmake_dir()}")
    assert done.returncode == 0, done.stderr
    assert "has numattn::headers" in done.stdout and "has numattn::numattn" not in done.stdout
    build(tmp_path / "build")
    installed = {path.name for path in Path(na.get_include(), "numattn").iterdir()}
    assert installed == {path.name for path in (ROOT / "cpp" / "include" / "numattn").iterdir()}
