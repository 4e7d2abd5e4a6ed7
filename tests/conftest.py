"""What every test file shares: the instruction set under test and a seeded generator."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import numattn as na

if TYPE_CHECKING:
    from numattn.models import Bert


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes seconds; leave out with -m 'not slow'")


@pytest.fixture(params=na.isa.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once at each instruction set this machine has."""
    with na.isa.use(request.param):
        yield request.param


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers at every run and every ISA."""
    name = getattr(request.node, "originalname", request.node.name)
    return np.random.default_rng(zlib.crc32(name.encode()))


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    from tiny_bert import write_folder

    return write_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def bert(bert_folder: Path) -> Bert:
    """The model of `bert_folder`."""
    from numattn.models import Bert

    return Bert.from_folder(bert_folder)


@pytest.fixture(scope="session")
def service(bert: Bert) -> Iterator[str]:
    """The address of a service of that model, which it calls "tiny"."""
    from serving import catalogue_of, serving

    with serving(catalogue_of(tiny=bert)) as address:
        yield address


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The name of an output file that is not there yet, in a folder of its own."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "vectors.npy"


@pytest.fixture
def seeded_torch() -> Iterator[None]:
    """PyTorch's own generator seeded, and its own kernels on one thread."""
    import torch

    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The core as a shared library with the interface of numattn.h."""
    from c_library import load, shared_prefix

    return load(shared_prefix(tmp_path_factory))


@pytest.fixture
def c_isa(library: ctypes.CDLL, isa: str) -> ctypes.CDLL:
    """The library, at the instruction set of Python."""
    if library.numattn_isa_use(isa.encode()) != 0:
        pytest.skip(f"the library is built without {isa}")
    return library
