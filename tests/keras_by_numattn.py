"""A plugin for pytest under which Keras' own tests pass through numattn.

    KERAS_BACKEND=torch PYTHONPATH=tests python -m pytest -p keras_by_numattn --pyargs keras.src...

It says at the end how many calls numattn computed, and fails the run if that were none. What trains
is left out with the NumPy backend, which cannot.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

calls = 0


def pytest_configure(config: pytest.Config) -> None:
    import numattn.compat.keras as nk

    real = nk.attention

    def counted(*arguments: Any, **options: Any) -> Any:
        global calls
        calls += 1
        return real(*arguments, **options)

    nk.attention = counted  # type: ignore[attr-defined]
    nk.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("KERAS_BACKEND") == "numpy":
        items[:] = [item for item in items if "lora" not in item.name]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not calls:
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"numattn computed {calls} calls of dot_product_attention")
