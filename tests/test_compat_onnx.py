"""`numattn.compat.onnx` against the cases and the reference evaluator of the onnx package."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import _NodeTestCases as NODE_CASES
from onnx.backend.test.runner import Runner
from onnx.reference import ReferenceEvaluator

from numattn import reference
from numattn.compat.onnx import attention
from tolerance import distance, float32_epsilon, norm

importlib.import_module("onnx.backend.test.case.node.attention")  # fills NODE_CASES

# An expanded case is a graph of the operator's body; the others are the operator alone.
CASES = [case for case in NODE_CASES if [n.op_type for n in case.model.graph.node] == ["Attention"]]

Array = np.ndarray


def test_every_case_is_here() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    if onnx.__version__ == "1.23.2":
        assert len(CASES) == 93
    else:
        assert len(CASES) >= 93


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("error")
def test_case(case: Any, isa: str) -> None:
    (node,) = case.model.graph.node
    for inputs, expected in case.data_sets:
        Runner.assert_similar_outputs(expected, run_node(node, inputs), case.rtol, case.atol)


def run_node(node: Any, inputs: list[Array]) -> list[Array]:
    """Call `attention` for a node; outputs that the node names, in its order."""
    given = iter(inputs)
    arguments = [next(given) if name else None for name in node.input]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if len(node.output) == 4:
        attributes.setdefault("qk_matmul_output_mode", 0)
    outputs = attention(*arguments, **attributes)
    return [output for name, output in zip(node.output, outputs, strict=False) if name]


def normal(*shape: int, seed: int = 0) -> Array:
    numbers = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return numbers.astype(np.float32)


B, HQ, HKV, SQ, S, P, D, DV = 2, 4, 2, 3, 5, 2, 4, 6
Q, K, V = normal(B, HQ, SQ, D), normal(B, HKV, S, D, seed=1), normal(B, HKV, S, DV, seed=2)
PAST_KEY, PAST_VALUE = normal(B, HKV, P, D, seed=3), normal(B, HKV, P, DV, seed=4)
NONPAD = np.array([4, 1])


def joined(x: Array) -> Array:
    """(B, H, S, D) as (B, S, H·D)."""
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(x.shape[0], x.shape[2], -1)


def mask_of(kind: str, columns: int) -> Array | None:
    """A mask of random numbers, of the kind's dtype and, if it says so, one column short."""
    if kind == "no mask":
        return None
    shape = (B, 1, SQ, columns - 1 if "short" in kind else columns)
    mask = normal(*shape, seed=5)
    return mask > -0.3 if "bool" in kind else mask


COMBINATIONS = list(
    itertools.product(
        (3, 4),
        ("no mask", "bool", "float", "short bool", "short float"),
        ("no cache", "past", "nonpad"),
        ((0, -1, -1), (1, -1, -1), (0, 1, 2), (1, 2, 0)),
    )
)


@pytest.mark.parametrize(("dimensions", "mask", "cache", "causal_and_window"), COMBINATIONS)
def test_agrees_with_the_reference_evaluator(
    dimensions: int, mask: str, cache: str, causal_and_window: tuple[int, int, int], isa: str
) -> None:
    past = cache == "past"
    inputs = {
        "Q": Q if dimensions == 4 else joined(Q),
        "K": K if dimensions == 4 else joined(K),
        "V": V if dimensions == 4 else joined(V),
        "attn_mask": mask_of(mask, S + P if past else S),
        "past_key": PAST_KEY if past else None,
        "past_value": PAST_VALUE if past else None,
        "nonpad_kv_seqlen": NONPAD if cache == "nonpad" else None,
    }
    names = ("is_causal", "left_window_size", "right_window_size")
    attributes = dict(zip(names, causal_and_window, strict=True))
    if dimensions == 3:
        attributes |= {"q_num_heads": HQ, "kv_num_heads": HKV}
    for more in (
        {"qk_matmul_output_mode": 0, "scale": 0.25},
        {"qk_matmul_output_mode": 1, "softcap": 1.5},
        {"qk_matmul_output_mode": 2, "softcap": 1.5},
        {"qk_matmul_output_mode": 3},
    ):
        outputs = attention(**inputs, **attributes, **more)
        expected = evaluate(inputs, {**attributes, **more})
        for output, exact in zip(outputs, expected, strict=True):
            assert output is not None and output.dtype == np.float32
            assert distance(output, exact) <= float32_epsilon(S + P) * norm(exact)


def evaluate(inputs: dict[str, Array | None], attributes: dict[str, Any]) -> list[Array]:
    """Run a node of opset 25 with onnx's own evaluator, in float64."""
    given = {
        name: x.astype(np.float64) if x.dtype == np.float32 else x
        for name, x in inputs.items()
        if x is not None
    }
    outputs = ["Y", "present_key", "present_value", "qk_matmul_output"]
    node = onnx.helper.make_node(
        "Attention", [name if name in given else "" for name in inputs], outputs, **attributes
    )
    graph = onnx.helper.make_graph(
        [node],
        "attention",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), x.shape
            )
            for name, x in given.items()
        ],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None)
            for name in outputs
        ],
    )
    opset = onnx.helper.make_opsetid("", 25)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return ReferenceEvaluator(model).run(None, given)


def test_fourth_output_is_made_only_when_asked_for(isa: str) -> None:
    assert attention(Q, K, V)[3] is None


def test_present_without_a_past_is_a_view(isa: str) -> None:
    _, present_key, present_value, _ = attention(
        joined(Q), joined(K), joined(V), q_num_heads=HQ, kv_num_heads=HKV
    )
    np.testing.assert_array_equal(present_key, K)
    np.testing.assert_array_equal(present_value, V)
    assert attention(Q, K, V)[1] is K


def test_float64_is_exact() -> None:
    q, k, v = (x.astype(np.float64) for x in (Q, K, V))
    y, _, _, weights = attention(q, k, v, is_causal=1, qk_matmul_output_mode=3)
    np.testing.assert_array_equal(y, reference.attention(q, k, v, is_causal=True))
    np.testing.assert_array_equal(weights, reference.attention_weights(q, k, is_causal=True))


@pytest.mark.parametrize(
    ("first", "second", "computed"),
    [
        ("float16", "float32", "float32"),
        ("bfloat16", "float16", "float32"),
        ("float32", "float64", "float64"),
    ],
)
def test_values_of_another_dtype_are_not_narrowed(
    first: str, second: str, computed: str, isa: str
) -> None:
    """The same as widening by hand, then rounding Y to Q's dtype."""
    q, k, v = Q.astype(dtype(first)), K.astype(dtype(first)), V.astype(dtype(second))
    y, present_key, present_value, _ = attention(q, k, v)
    wide, *_ = attention(*(x.astype(computed) for x in (q, k, v)))
    np.testing.assert_array_equal(y, wide.astype(dtype(first)))
    assert (present_key.dtype, present_value.dtype) == (dtype(first), dtype(second))


def dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "bfloat16", "uint8", "int64"])
@pytest.mark.parametrize("inputs", ["float32", "bfloat16", "float64"])
def test_masks_that_are_added_may_be_of_any_dtype(name: str, inputs: str, isa: str) -> None:
    mask = np.array([[0, 1, 2, 0, 3]]).astype(dtype(name))
    q, k, v = (x.astype(dtype(inputs)) for x in (Q, K, V))
    y, *_ = attention(q, k, v, mask)
    expected, *_ = attention(q, k, v, mask.astype(np.float32))
    np.testing.assert_array_equal(y, expected)


@pytest.mark.filterwarnings("error")
def test_lowest_float64_in_a_mask_excludes(isa: str) -> None:
    mask = np.array([[0.0, 0.0, np.finfo(np.float64).min, 0.0, 0.0]])
    poisoned = K.copy()
    poisoned[:, :, 2] = np.nan
    y, *_ = attention(Q, poisoned, V, mask)
    holed = np.where(mask < 0, -np.inf, 0).astype(np.float32)
    expected, *_ = attention(Q, K, V, holed)
    np.testing.assert_array_equal(y, expected)


def test_keys_past_a_short_mask_are_never_read(isa: str) -> None:
    poisoned_key, poisoned_value = K.copy(), V.copy()
    poisoned_key[:, :, 3:] = poisoned_value[:, :, 3:] = np.nan
    mask = np.ones((SQ, 3), dtype=bool)
    y, _, _, weights = attention(Q, poisoned_key, poisoned_value, mask, qk_matmul_output_mode=3)
    np.testing.assert_array_equal(y, attention(Q, K[:, :, :3], V[:, :, :3], mask)[0])
    assert weights is not None and np.all(weights[..., 3:] == 0)


@pytest.mark.parametrize("softmax_precision", [1, 10, 11, 16])
def test_softmax_precision_is_accepted(softmax_precision: int, isa: str) -> None:
    y, *_ = attention(Q, K, V, softmax_precision=softmax_precision)
    np.testing.assert_array_equal(y, attention(Q, K, V)[0])


def test_head_counts_may_repeat_what_four_dimensions_say(isa: str) -> None:
    y, *_ = attention(Q, K, V, q_num_heads=HQ, kv_num_heads=HKV)
    np.testing.assert_array_equal(y, attention(Q, K, V)[0])


BAD_VALUES: dict[str, dict[str, Any]] = {
    "nonpad_kv_seqlen cannot be combined": {
        "past_key": PAST_KEY,
        "past_value": PAST_VALUE,
        "nonpad_kv_seqlen": NONPAD,
    },
    "must be given together": {"past_key": PAST_KEY},
    "past_key and past_value must be given together": {"past_value": PAST_VALUE},
    r"nonpad_kv_seqlen must have shape \(2,\), not \(1,\)": {"nonpad_kv_seqlen": np.array([4])},
    r"must lie in 0 … 5, not \[6, 0\]": {"nonpad_kv_seqlen": np.array([6, 0])},
    r"must lie in 0 … 5, not \[-1, 0\]": {"nonpad_kv_seqlen": np.array([-1, 0])},
    "fewer columns than nonpad_kv_seqlen": {
        "attn_mask": np.ones((SQ, 3), dtype=bool),
        "nonpad_kv_seqlen": NONPAD,
    },
    "q_num_heads is 3, but the input": {"q_num_heads": 3},
    "kv_num_heads is 4, but the input": {"kv_num_heads": 4},
    "softcap must be 0": {"softcap": -1.0},
    "softmax_precision must be 1, 10, 11 or 16, not 7": {"softmax_precision": 7},
    "qk_matmul_output_mode must be 0, 1, 2 or 3, not 4": {"qk_matmul_output_mode": 4},
    "window sizes must be -1 or more, not left -2": {"left_window_size": -2},
    "window sizes must be -1 or more, not left -1, right -3": {"right_window_size": -3},
    "differ in dimensions": {"Q": joined(Q)},
    "q_num_heads is needed": {"Q": joined(Q), "K": joined(K), "V": joined(V)},
    "q_num_heads is 3, which does not divide 16": {
        "Q": joined(Q),
        "K": joined(K),
        "V": joined(V),
        "q_num_heads": 3,
        "kv_num_heads": HKV,
    },
    "inputs must have 3 or 4 dimensions": {"Q": Q[0, 0], "K": K[0, 0], "V": V[0, 0]},
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_values_that_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(**{"Q": Q, "K": K, "V": V, **BAD_VALUES[message]})


BAD_DTYPES: dict[str, dict[str, Any]] = {
    "Q must be of float32, float16, bfloat16, float64, not int32": {"Q": Q.astype(np.int32)},
    "V must be of .* not bool": {"V": V > 0},
    "K is float16; it must be float32": {"K": K.astype(np.float16)},
    "past_key is float64; it must be float32": {
        "past_key": PAST_KEY.astype(np.float64),
        "past_value": PAST_VALUE,
    },
    "past_value is float16; it must be float32": {
        "past_key": PAST_KEY,
        "past_value": PAST_VALUE.astype(np.float16),
    },
    "unexpected keyword argument 'softcaps'": {"softcaps": 1.0},
}


@pytest.mark.parametrize("message", BAD_DTYPES)
def test_dtypes_and_names_that_are_refused(message: str) -> None:
    with pytest.raises(TypeError, match=message):
        attention(**{"Q": Q, "K": K, "V": V, **BAD_DTYPES[message]})
