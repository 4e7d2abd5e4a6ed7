"""Results as lines of JSON, on standard output or in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .whole_file import whole_file


def vector_line(index: int, vector: NDArray[np.float32]) -> str:
    """Return the line of a vector.

    Nine digits are as many as tell each float32 from all others.

    Raises
    ------
    ValueError
        If a number is none that JSON has.

    Examples
    --------
    >>> vector_line(2, np.array([0.1, -1], np.float32))
    '{"index": 2, "embedding": [0.100000001, -1]}\\n'
    """
    if not np.isfinite(vector).all():
        raise ValueError(f"the vector at index {index} is not finite, and JSON has no such numbers")
    numbers = ", ".join([f"{value:.9g}" for value in vector.tolist()])
    return f'{{"index": {index}, "embedding": [{numbers}]}}\n'


@contextmanager
def text_sink(out: Path | None) -> Iterator[Callable[[str], object]]:
    """Yield what writes text at once: into a file, or without one to standard output."""
    if out is None:
        yield lambda text: print(text, end="", flush=True)
        return
    with whole_file(out) as file:
        yield lambda text: file.write(text.encode())
