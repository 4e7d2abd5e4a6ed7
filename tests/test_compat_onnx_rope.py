"""`numattn.compat.onnx.rotary_embedding` against the cases of the onnx package."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import _NodeTestCases as NODE_CASES
from onnx.backend.test.runner import Runner

from cases import DTYPES, normal
from numattn import reference
from numattn.compat.onnx import rotary_embedding
from tolerance import assert_same_bits

importlib.import_module("onnx.backend.test.case.node.rotaryembedding")  # fills NODE_CASES

# An expanded case is a graph of the operator's body; the others are the operator alone.
CASES = [
    case for case in NODE_CASES if [n.op_type for n in case.model.graph.node] == ["RotaryEmbedding"]
]


def test_every_case_is_here() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    if onnx.__version__ == "1.23.2":
        assert len(CASES) == 8
    else:
        assert len(CASES) >= 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("error")
def test_case(case: Any, isa: str) -> None:
    (node,) = case.model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for inputs, expected in case.data_sets:
        given = iter(inputs)
        arguments = [next(given) if name else None for name in node.input]
        output = rotary_embedding(*arguments, **attributes)
        Runner.assert_similar_outputs(expected, [output], case.rtol, case.atol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(isa: str, rng: np.random.Generator, dtype: str) -> None:
    x = normal(rng, (2, 3, 32), dtype)
    cos, sin = normal(rng, (2, 3, 4), dtype), normal(rng, (2, 3, 4), dtype)
    y = rotary_embedding(x, cos, sin, num_heads=4)
    assert y.dtype == x.dtype
    exact = reference.apply_rope(x.reshape(2, 3, 4, 8), cos, sin, layout="bshd")
    # Values below 8: half a unit in their last place, and of float32 two roundings.
    bound = 8 * 2.0 ** {"float32": -23, "float16": -11, "bfloat16": -8}[dtype]
    np.testing.assert_allclose(y.astype(float), exact.reshape(2, 3, 32), atol=bound, rtol=0)
    four = rotary_embedding(x.reshape(2, 3, 4, 8).swapaxes(1, 2), cos, sin, num_heads=4)
    assert_same_bits(four.swapaxes(1, 2).reshape(2, 3, 32), y)


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


GOOD: dict[str, Any] = {"X": zeros(2, 4, 3, 8), "cos_cache": zeros(9, 4), "sin_cache": zeros(9, 4)}
IDS = np.zeros((2, 3), np.int64)
BAD_VALUES: dict[str, dict[str, Any]] = {
    "caches without position_ids": {},
    r"position_ids must have shape \(B, S\), not \(3,\)": {"position_ids": IDS[0]},
    "position 9 is not in the tables": {"position_ids": IDS + 9},
    "num_heads is 3, but X": {"position_ids": IDS, "num_heads": 3},
    "num_heads is needed": {"X": zeros(2, 3, 32), "position_ids": IDS},
    "num_heads is 5, which does not divide 32": {"X": zeros(2, 3, 32), "num_heads": 5},
    "num_heads is 0, which does not divide 32": {"X": zeros(2, 3, 32), "num_heads": 0},
    "X must have 3 or 4 dimensions": {"X": zeros(3, 8)},
    "cos_cache .* half as many columns as elements turn, 4": {"rotary_embedding_dim": 4},
    "elements turn, 7": {"X": zeros(2, 4, 3, 7)},
    "sin_cache .* half as many": {"sin_cache": zeros(9, 3)},
    "interleaved must be 0 or 1, not 2": {"interleaved": 2},
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_values_that_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotary_embedding(**{**GOOD, **BAD_VALUES[message]})


def test_dtypes_that_are_refused() -> None:
    with pytest.raises(TypeError, match="X must be of float32, float16, bfloat16, not float64"):
        rotary_embedding(**{**GOOD, "X": GOOD["X"].astype(float)})
    with pytest.raises(TypeError, match="cos_cache is float16; it must be float32 as X"):
        rotary_embedding(**{**GOOD, "cos_cache": GOOD["cos_cache"].astype(np.float16)})
