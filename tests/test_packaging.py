"""What is said of the package in more than one place is the same in each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
RECIPE = (ROOT / "packaging/conda/recipe.yaml").read_text(encoding="utf-8")


def of_pyproject(pattern: str) -> str:
    found = re.search(pattern, PYPROJECT)
    assert found is not None, pattern
    return found[1]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (r'\nversion = "(.*)"', 'version: "{}"'),
        (r'\ndescription = "(.*)"', 'summary: "{}"'),
        (r'\nlicense = "(.*)"', "license: {}"),
        (r'\nrequires-python = "(.*)"', "- python {}"),
        (r'"numpy(>=[\d.]+)"', "- numpy {}"),
        (r'"pybind11(>=[\d.]+)"', "- pybind11 {}"),
        (r'"scikit-build-core(>=[\d.]+)"', "- scikit-build-core {}"),
        (r'cmake\.version = "(.*)"', "- cmake {}"),
    ],
)
def test_the_conda_recipe_is_as_pyproject_has_it(place: str, line: str) -> None:
    assert line.format(of_pyproject(place)) in RECIPE


def test_cmake_wants_the_same_pybind11() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert f"find_package(pybind11 {of_pyproject(r'pybind11>=([0-9.]+)')} " in cmake
