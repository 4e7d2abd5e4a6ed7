"""NumKong: products of NumPy arrays with packed weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import Case, LinearCase, Operands
from contestant import Candidate, Recipe, Unsupported
from serving import ServingCase


class NumKong:
    """Its packed product, which knows neither bias nor activation; one thread."""

    name = "NumKong"

    def __init__(self, threads: int) -> None:
        import numkong

        self.numkong: Any = numkong
        self.version = str(numkong.__version__)
        self.threads = threads

    def recipes(self, case: Case | ServingCase, dtype: str, operands: Operands) -> list[Recipe]:
        if not isinstance(case, LinearCase) or not case.plain:
            raise Unsupported("it computes plain products alone")
        if self.threads > 1:
            raise Unsupported("it runs in the caller's thread")
        return [partial(self.product, operands)]

    def product(self, operands: Operands) -> Candidate:
        packed = self.numkong.dots_pack(operands["weight"])
        call = partial(self.numkong.dots_packed, operands["x"], packed)

        def fetch(result: Any) -> NDArray[np.float32]:
            return np.asarray(result).astype(np.float32)

        return Candidate("dots_packed", call, fetch)
