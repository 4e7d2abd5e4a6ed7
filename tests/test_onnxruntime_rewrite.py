"""Models whose attention is replaced: by name, in pieces, in functions and inner graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from numattn.compat.onnxruntime import rewrite  # noqa: E402
from numattn.compat.onnxruntime.__main__ import main  # noqa: E402
from onnxruntime_nodes import model_of, run, session_of  # noqa: E402

B, S, H, D = 2, 9, 4, 8
node = helper.make_node


def number(name: str, value: float) -> Any:
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def shape(name: str, *lengths: int) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [len(lengths)], lengths)


def projections(keys_turned: bool = True) -> list[Any]:
    """Heads of x, y and z (B, S, H·D), as exporters make them."""
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1] if keys_turned else [0, 2, 1, 3]}
    nodes = []
    for name, x in (("q", "x"), ("k", "y"), ("v", "z")):
        nodes.append(node("Reshape", [x, "split"], [f"{name}_rows"]))
        perm = turns.get(name, [0, 2, 1, 3])
        nodes.append(node("Transpose", [f"{name}_rows"], [name], perm=perm))
    return nodes


END = [
    node("Transpose", ["heads"], ["rows"], perm=[0, 2, 1, 3]),
    node("Reshape", ["rows", "join"], ["out"]),
]
PIECES = [
    node("MatMul", ["q", "k"], ["product"]),
    node("Mul", ["product", "scale"], ["scores"]),
    node("Add", ["scores", "mask"], ["masked"]),
    node("Softmax", ["masked"], ["weights"], axis=-1),
    node("MatMul", ["weights", "v"], ["heads"]),
]
NUMBERS = [
    shape("split", 0, 0, H, D), shape("join", 0, 0, H * D), number("scale", D**-0.5),
    number("root", D**-0.25), number("wide", D**0.5), number("zero", 0.0),
]  # fmt: skip


def model(nodes: list[Any], opset: int = 18, outputs: tuple[str, ...] = ("out",)) -> Any:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "attention",
        [value(name, TensorProto.FLOAT, ["batch", "length", H * D]) for name in "xyz"]
        + [value("mask", TensorProto.FLOAT, ["batch", 1, "length", "length"])],
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        [x for x in NUMBERS if any(x.name in n.input for n in nodes)],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    given = {name: rng.standard_normal((B, S, H * D), np.float32) for name in "xyz"}
    hidden = np.where(rng.random((B, 1, S, S)) < 0.3, -np.inf, 0).astype(np.float32)
    hidden[..., 0] = 0
    return given | {"mask": hidden}


def same(before: Any, inputs: dict[str, np.ndarray]) -> Any:
    """Return the rewritten model, whose outputs are those of before."""
    rewritten = rewrite(before)
    used = {x.name for x in before.graph.input}
    given = {name: x for name, x in inputs.items() if name in used}
    outputs = [run(session_of(x), given) for x in (before, rewritten.model)]
    for theirs, own in zip(*outputs, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=0, atol=3e-6)
    return rewritten


def operators(graph: Any) -> list[str]:
    return [f"{n.domain}.{n.op_type}".lstrip(".") for n in graph.node]


def changed(*, without: tuple[str, ...] = (), **others: Any) -> list[Any]:
    """The pieces with nodes put in the place of those that make a value."""
    nodes = []
    for piece in PIECES:
        (made,) = piece.output
        if made not in without:
            nodes += others.get(made, [piece])
    return nodes


VARIANTS: dict[str, list[Any]] = {
    "as torch writes it": PIECES,
    "the mask first": changed(masked=[node("Add", ["mask", "scores"], ["masked"])]),
    "divided": changed(scores=[node("Div", ["product", "wide"], ["scores"])]),
    "scaled on the left": changed(scores=[node("Mul", ["scale", "product"], ["scores"])]),
    "a constant node": changed(
        scores=[
            node("Constant", [], ["inline"], value=number("", D**-0.5)),
            node("Mul", ["product", "inline"], ["scores"]),
        ]
    ),
    "no mask": changed(without=("masked",), weights=[node("Softmax", ["scores"], ["weights"])]),
    "the last axis by number": changed(weights=[node("Softmax", ["masked"], ["weights"], axis=3)]),
    "queries and keys scaled": changed(
        product=[
            node("Mul", ["q", "root"], ["q_scaled"]),
            node("Mul", ["k", "root"], ["k_scaled"]),
            node("MatMul", ["q_scaled", "k_scaled"], ["scores"]),
        ],
        without=("scores",),
    ),
    "NaN as zero": changed(
        heads=[
            node("IsNaN", ["weights"], ["is_nan"]),
            node("Where", ["is_nan", "zero", "weights"], ["guarded"]),
            node("MatMul", ["guarded", "v"], ["heads"]),
        ]
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pieces(inputs: dict[str, np.ndarray], variant: str) -> None:
    """Heads stay where they lie: no transposition is left."""
    rewritten = same(model([*projections(), *VARIANTS[variant], *END]), inputs)
    assert rewritten.replaced == {"MatMul-Softmax-MatMul": 1} and rewritten.left == []
    assert operators(rewritten.model.graph) == ["numattn.Attention", "Reshape"]
    assert {x.name for x in rewritten.model.graph.initializer} == {"join"}
    assert [x.domain for x in rewritten.model.opset_import] == ["", "com.microsoft", "numattn"]


def test_a_row_that_sees_nothing(inputs: dict[str, np.ndarray]) -> None:
    """NaN in pieces; where these make zero of it, numattn does the same."""
    inputs["mask"][0, 0, 3] = -np.inf
    same(model([*projections(), *VARIANTS["NaN as zero"], *END]), inputs)


def test_heads_that_others_read_stay(inputs: dict[str, np.ndarray]) -> None:
    before = model([*projections(), *PIECES, *END], outputs=("out", "heads"))
    assert "Transpose" in operators(same(before, inputs).model.graph)


UNLIKE: dict[str, tuple[list[Any], str]] = {
    "another axis": (
        changed(weights=[node("Softmax", ["masked"], ["weights"], axis=2)]),
        "not over the last axis of four",
    ),
    "no product": (
        [node("Softmax", ["q"], ["weights"]), node("MatMul", ["weights", "k"], ["heads"])],
        "Transpose among its scores",
    ),
    "scaled by what comes in": (
        changed(scores=[node("Mul", ["product", "mask"], ["scores"])]),
        "scaled by what is not a constant number",
    ),
    "keys as they come": (
        changed(
            product=[
                node("Identity", ["k"], ["k_same"]),
                node("MatMul", ["q", "k_same"], ["product"]),
            ]
        ),
        "its keys are not those of a Transpose",
    ),
    "weights on the right": (
        changed(
            weights=[
                node("Softmax", ["masked"], ["once"]),
                node("Relu", ["once"], ["weights"]),
            ]
        ),
        "its results are not multiplied by values alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", UNLIKE)
def test_what_is_no_attention_is_left(variant: str) -> None:
    pieces, reason = UNLIKE[variant]
    with pytest.raises(ValueError, match=f"no attention that numattn could replace: .*{reason}"):
        rewrite(model([*projections(), *pieces, *END]))


def test_weights_that_are_a_result_are_left() -> None:
    with pytest.raises(ValueError, match="its results are not multiplied by values alone"):
        rewrite(model([*projections(), *PIECES, *END], outputs=("out", "weights")))


def test_a_model_without_any() -> None:
    nodes = [node("Relu", ["x"], ["out"])]
    with pytest.raises(ValueError, match="the model has no Attention, MultiHeadAttention"):
        rewrite(model(nodes))


def test_by_name_and_what_is_left(inputs: dict[str, np.ndarray]) -> None:
    """The model that was given is as it was."""
    nodes = [
        *projections(keys_turned=False),
        node("Attention", ["q", "k", "v", "mask"], ["heads"], scale=0.3),
        *END,
        node("MultiHeadAttention", ["x", "y", "z"], ["other"], "second", None, "com.microsoft",
             num_heads=H),
        node("Attention", ["q", "k", "v"], ["third", "", "", "qk"]),
    ]  # fmt: skip
    before = model(nodes, 23, ("out", "other", "third"))
    bytes_before = before.SerializeToString()
    rewritten = same(before, inputs)
    assert before.SerializeToString() == bytes_before
    assert rewritten.replaced == {"Attention": 1, "MultiHeadAttention": 1}
    assert rewritten.left == ["Attention third: output 3 (qk) is not implemented"]
    (first,) = (n for n in rewritten.model.graph.node if n.output[0] == "rows")
    given = {x.name: helper.get_attribute_value(x) for x in first.attribute}
    assert given["q_num_heads"] == given["kv_num_heads"] == H and given["opset"] == 23


@pytest.mark.parametrize(
    ("operator", "attributes", "words"),
    [
        ("MultiHeadAttention", {"mask_filter_value": -1.0}, "mask_filter_value = -1"),
        ("MultiHeadAttention", {"later": 1}, "attribute later is not known"),
        ("GroupQueryAttention", {"qk_output": 1}, "qk_output = 1"),
        ("Attention", {}, "its projections are inside"),
    ],
)
def test_settings_that_are_not_carried_out(
    inputs: dict[str, np.ndarray], operator: str, attributes: dict[str, Any], words: str
) -> None:
    given = {name: inputs[name] for name in "xyz"}
    before = model_of(operator, given, list("xyz"), ["out"], "com.microsoft", **attributes)
    with pytest.raises(ValueError, match=f"{operator} out: {words}"):
        rewrite(before)


def test_functions_and_inner_graphs(inputs: dict[str, np.ndarray]) -> None:
    value = helper.make_tensor_value_info
    heads = [*projections(keys_turned=False), node("Attention", list("qkv"), ["heads"]), *END]
    numbers = [
        node("Constant", [], ["split"], value=shape("", 0, 0, H, D)),
        node("Constant", [], ["join"], value=shape("", 0, 0, H * D)),
    ]
    opsets = [helper.make_opsetid("", 23)]
    function = helper.make_function("own", "F", list("xyz"), ["out"], [*numbers, *heads], opsets)
    inner = [
        helper.make_graph([*numbers, *heads], "inner", [], [value("out", TensorProto.FLOAT, None)])
        for _ in range(2)
    ]
    nodes = [
        node("F", list("xyz"), ["first"], domain="own"),
        node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [True])),
        node("If", ["yes"], ["second"], then_branch=inner[0], else_branch=inner[1]),
        node("Add", ["first", "second"], ["out"]),
    ]
    before = model(nodes, 23)
    before.functions.append(function)
    before.opset_import.append(helper.make_opsetid("own", 1))
    rewritten = same(before, inputs)
    assert rewritten.replaced == {"Attention": 3}
    assert not rewritten.model.functions


def test_the_command(
    inputs: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model([*projections(), *PIECES, *END]), before)
    assert main([str(before), str(after)]) == 0
    said = capsys.readouterr().out
    assert "1 of MatMul-Softmax-MatMul replaced" in said
    assert "register_custom_ops_library" in said
    results = [run(session_of(onnx.load(path)), inputs)[0] for path in (before, after)]
    np.testing.assert_allclose(*results, rtol=0, atol=3e-6)
    with pytest.raises(SystemExit):
        main([str(after), str(tmp_path / "again.onnx")])
    assert "no attention that numattn could replace" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.onnx"), str(after)])
    assert "none.onnx" in capsys.readouterr().err
