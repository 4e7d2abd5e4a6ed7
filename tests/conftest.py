"""What every test file shares: the instruction set under test and a seeded generator."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest

import numattn as na


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
