"""The library for C, built and installed once for all tests; its structs for ctypes."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
# Beside the Python of the tests lie the CMake and Ninja that `pip install --group test` brings.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
OK, INVALID, OUT_OF_MEMORY, INTERRUPTED = range(4)
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2, "bool": 3, "int8": 4}


def tool(name: str) -> str:
    """Return where a tool is; without it, the test is skipped."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def run(*command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return the finished process, whose environment says nothing of numattn by itself."""
    inherited = {name: value for name, value in os.environ.items() if "NUMATTN" not in name}
    inherited.pop("LD_LIBRARY_PATH", None)
    return subprocess.run(
        [str(word) for word in command],
        env=inherited | {"PATH": PATH} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def output_of(*command: Any, **environment: str) -> str:
    """Return what a command prints; it must end well."""
    process = run(*command, **environment)
    assert process.returncode == 0, f"{process.stdout[-3000:]}\n{process.stderr[-3000:]}"
    return process.stdout


def configure(source: Path, build: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Return what CMake says of a project."""
    words = [tool("cmake"), "-S", source, "-B", build, *options]
    if ninja := shutil.which("ninja", path=PATH):
        words += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    return run(*words)


def build(folder: Path) -> None:
    output_of(tool("cmake"), "--build", folder, "--parallel", "2")


def build_library(folder: Path) -> Path:
    """Return the prefix where it is installed: with two instruction sets alone, since each takes a
    compiler the better part of a minute."""
    prefix = folder / "prefix"
    options = ["-DNUMATTN_WERROR=ON", f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    options += ["-DCMAKE_INSTALL_LIBDIR=lib"]
    isas = {"x86_64": "avx2", "aarch64": "neon", "arm64": "neon"}
    options += [f"-DNUMATTN_ISAS={isas.get(os.uname().machine, '')}"]
    if ccache := shutil.which("ccache"):
        options += [f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}"]
    done = configure(ROOT, folder / "build", *options)
    assert done.returncode == 0, done.stderr
    build(folder / "build")
    output_of(tool("cmake"), "--install", folder / "build")
    return prefix


def shared_prefix(factory: pytest.TempPathFactory) -> Path:
    """Return that prefix, the same for all of pytest-xdist's workers."""
    if not (ROOT / "cpp").is_dir():
        pytest.skip("needs the sources")
    for name in ("cmake", "c++", "cc"):
        tool(name)
    base = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    folder = base / "c_library"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            build_library(folder)
            (folder / "done").touch()
    return folder / "prefix"


def numbers_in(text: str) -> np.ndarray:
    """Return the numbers that an example prints."""
    return np.array([float(word) for word in re.findall(r"-?\d+\.\d{6}", text)])


class Tensor(ctypes.Structure):
    """numattn_tensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_int64 * 4),
    ]

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        """Return the tensor of an array, which must outlive it."""
        tensor = cls(array.ctypes.data, DTYPES[str(array.dtype)], array.ndim)
        tensor.shape[: array.ndim] = array.shape
        tensor.strides[: array.ndim] = array.strides
        return tensor


class Ints(ctypes.Structure):
    """numattn_ints."""

    _fields_ = [("data", ctypes.c_void_p), ("count", ctypes.c_int64)]

    @classmethod
    def of(cls, array: np.ndarray) -> Ints:
        assert array.dtype == np.int64 and array.flags.c_contiguous
        return cls(array.ctypes.data, array.size)


INTERRUPT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
PART = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, PART, ctypes.c_void_p)


class AttentionArgs(ctypes.Structure):
    """numattn_attention_args."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        *((name, Tensor) for name in "q k v out lse k_scale v_scale".split()),
        *((name, Tensor) for name in "mask bias alibi_slopes sinks".split()),
        *((name, ctypes.c_int32) for name in "layout precision num_threads is_causal".split()),
        *((name, ctypes.c_int32) for name in "has_window has_scale".split()),
        *((name, ctypes.c_int64) for name in "window_left window_right sink_tokens".split()),
        *((name, ctypes.c_double) for name in "scale softcap skip_below".split()),
        ("q_offset", Ints),
        ("kv_lens", Ints),
        ("key_spans", ctypes.c_void_p),
        ("key_spans_shape", ctypes.c_int64 * 3),
        ("interrupt", INTERRUPT),
        ("interrupt_context", ctypes.c_void_p),
        ("parallel", PARALLEL),
        ("parallel_context", ctypes.c_void_p),
    ]


class RopeArgs(ctypes.Structure):
    """numattn_rope_args."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        *((name, Tensor) for name in "x out cos sin".split()),
        ("positions", Ints),
        *((name, ctypes.c_int32) for name in "layout interleaved num_threads reserved".split()),
        ("interrupt", INTERRUPT),
        ("interrupt_context", ctypes.c_void_p),
        ("parallel", PARALLEL),
        ("parallel_context", ctypes.c_void_p),
    ]


class LinearArgs(ctypes.Structure):
    """numattn_linear_args."""

    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        *((name, Tensor) for name in "x out factor residual".split()),
        ("activation", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
        ("interrupt", INTERRUPT),
        ("interrupt_context", ctypes.c_void_p),
        ("factor_layer", ctypes.c_void_p),
    ]


def load(prefix: Path) -> ctypes.CDLL:
    """Return the installed library."""
    library = ctypes.CDLL(str(prefix / "lib" / "libnumattn.so"))
    for name in ("last_error", "version", "isa_current", "isa_available"):
        getattr(library, f"numattn_{name}").restype = ctypes.c_char_p
    for name in ("attention_varlen", "attention_paged"):
        pointers = [ctypes.c_void_p] * (3 if name == "attention_varlen" else 2)
        integers = [ctypes.c_int64] * (1 if name == "attention_varlen" else 2)
        getattr(library, f"numattn_{name}").argtypes = pointers + integers
    library.numattn_linear_destroy.argtypes = [ctypes.c_void_p]
    library.numattn_linear_destroy.restype = None
    library.numattn_linear_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.numattn_contiguous.restype = Tensor
    library.numattn_contiguous.argtypes = [
        ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p,
    ]  # fmt: skip
    return library
