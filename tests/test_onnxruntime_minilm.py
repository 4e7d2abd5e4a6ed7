"""MiniLM as PyTorch and ONNX Runtime's optimizer write it, rewritten: the same vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("onnxscript")

from numattn.compat.onnxruntime import rewrite  # noqa: E402
from numattn.models import installed_folder  # noqa: E402
from onnxruntime_nodes import options  # noqa: E402

pytestmark = pytest.mark.slow
LAYERS = 6
EXPORTS = {
    "opset 23": (23, "sdpa", True, {"Attention": LAYERS}),
    "opset 18 in pieces": (18, "eager", True, {"MatMul-Softmax-MatMul": LAYERS}),
    "TorchScript": (17, "sdpa", False, {"MatMul-Softmax-MatMul": LAYERS}),
}


@pytest.fixture(autouse=True)
def weights() -> None:
    try:
        installed_folder()
    except FileNotFoundError as error:
        pytest.skip(str(error))


class Encoder(torch.nn.Module):
    """Hidden states alone: exporters trip over the defaults of a model's other arguments."""

    def __init__(self, implementation: str) -> None:
        super().__init__()
        folder = installed_folder()
        self.model = transformers.AutoModel.from_pretrained(
            folder, attn_implementation=implementation
        ).eval()

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def export(path: Path, opset: int, implementation: str, dynamo: bool) -> None:
    ids = torch.randint(5, 1000, (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    axes = {0: "batch", 1: "length"}
    names = {"input_ids": axes, "attention_mask": axes}
    lengths: dict[str, Any] = {"dynamic_axes": names | {"hidden": axes}}
    if dynamo:
        axes = {axis: torch.export.Dim(name) for axis, name in axes.items()}
        lengths = {"dynamic_shapes": {name: axes for name in names}}
    torch.onnx.export(
        Encoder(implementation), (ids, mask), path, input_names=list(names),
        output_names=["hidden"], opset_version=opset, dynamo=dynamo, **lengths,
    )  # fmt: skip


def texts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    ids = rng.integers(1000, 20000, (4, 60))
    lengths = np.array([[60], [41], [7], [1]])
    return {"input_ids": ids, "attention_mask": (np.arange(60) < lengths).astype(np.int64)}


def hidden(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Return the hidden states, those of padding as 0."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options(1), providers=["CPUExecutionProvider"]
    )
    states: np.ndarray = session.run(None, inputs)[0]
    return states * inputs["attention_mask"][..., None]


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(rng: np.random.Generator, tmp_path: Path, name: str) -> None:
    opset, implementation, dynamo, replaced = EXPORTS[name]
    export(tmp_path / "model.onnx", opset, implementation, dynamo)
    model = onnx.load(tmp_path / "model.onnx")
    rewritten = rewrite(model)
    assert rewritten.replaced == replaced and rewritten.left == []
    inputs = texts(rng)
    theirs, own = (hidden(x, inputs) for x in (model, rewritten.model))
    np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-5)


def test_what_onnx_runtime_s_optimizer_makes(rng: np.random.Generator, tmp_path: Path) -> None:
    """Its MultiHeadAttention takes the bias of the projections. (Of the mask it makes one of its
    own, by which both attend to padding.)"""
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    from onnxruntime.transformers.fusion_options import FusionOptions

    export(tmp_path / "model.onnx", 17, "eager", False)
    chosen = FusionOptions("bert")
    chosen.use_multi_head_attention = True
    made = optimizer.optimize_model(
        str(tmp_path / "model.onnx"), "bert", 12, 384, optimization_options=chosen, opt_level=0
    )
    rewritten = rewrite(made.model)
    assert rewritten.replaced == {"MultiHeadAttention": LAYERS}
    inputs = texts(rng)
    theirs, own = (hidden(x, inputs) for x in (made.model, rewritten.model))
    np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-5)
