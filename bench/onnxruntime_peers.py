"""ONNX Runtime with its own attention beside the same with numattn's: A B A B …, medians.

    python bench/onnxruntime_peers.py --threads 2 --json out.json

First attention alone: a node MultiHeadAttention of all-MiniLM-L6-v2's shape and GroupQueryAttention
of a Llama's with 9 heads of 64 and 3 of keys, rotary positions and a buffer shared by past and
present; ours is the same node of the domain "numattn". Then all-MiniLM-L6-v2 with its weights (or
random ones, where they are not installed), as PyTorch exports it in opset 23, whose nodes Attention
`numattn.compat.onnxruntime.rewrite` replaces. All else is ONNX Runtime's in each. Before timing,
results are held to one another.

Last the same model in integers: quantised by ONNX Runtime (`quantize_dynamic`, a scale for each
output feature), beside `models.Bert` of "w8a8", with the error of both beside float32's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import numattn as na
from numattn.compat.onnxruntime import library_path, rewrite

PEERS = ("numattn", "com.microsoft")
MOST_DIFFERENCE = 1e-4
MINILM = ((1, 32), (1, 128), (1, 512), (32, 128))
INTEGERS = ((1, 16), (32, 64), (8, 256))
HEADS, WIDTH = 12, 32
ENCODER = ((1, 128), (1, 512), (32, 128), (1, 2048))
GROUPS, KEY_HEADS, HEAD = 9, 3, 64
DECODER = ((1, 512, 0), (1, 2048, 0), (1, 1, 512), (1, 1, 4096), (8, 1, 512))
Run = Callable[[], np.ndarray]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9, help="turns of each")
    parser.add_argument("--without-model", action="store_true", help="attention alone")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def session_of(model: Any, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(library_path())
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def node_model(
    operator: str, domain: str, inputs: dict[str, np.ndarray], outputs: list[str], **attributes: Any
) -> Any:
    kinds = {"float32": onnx.TensorProto.FLOAT, "int32": onnx.TensorProto.INT32}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, list(inputs), outputs, domain=domain, **attributes)],
        operator,
        [value(name, kinds[str(x.dtype)], x.shape) for name, x in inputs.items()],
        [value(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    opsets = [helper.make_opsetid(name, 1) for name in PEERS]
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 23), *opsets], ir_version=10
    )


def encoder_run(domain: str, batch: int, length: int, threads: int) -> Run:
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.standard_normal((batch, length, HEADS * WIDTH), np.float32)
        for name in ("query", "key", "value")
    }
    model = node_model("MultiHeadAttention", domain, inputs, ["output"], num_heads=HEADS)
    session = session_of(model, threads)
    return lambda: session.run(None, inputs)[0]


def decoder_run(domain: str, batch: int, length: int, past: int, threads: int) -> Run:
    """A prompt, or a step whose keys and values are stored in place."""
    rng = np.random.default_rng(0)
    total = past + length
    normal = rng.standard_normal
    angle = np.arange(total)[:, None] * 1e4 ** (-np.arange(HEAD // 2) / (HEAD // 2))
    inputs = {
        "query": normal((batch, length, GROUPS * HEAD), np.float32),
        "key": normal((batch, length, KEY_HEADS * HEAD), np.float32),
        "value": normal((batch, length, KEY_HEADS * HEAD), np.float32),
        "past_key": normal((batch, KEY_HEADS, total, HEAD), np.float32),
        "past_value": normal((batch, KEY_HEADS, total, HEAD), np.float32),
        "seqlens_k": np.full(batch, total - 1, np.int32),
        "total_sequence_length": np.array(total, np.int32),
        "cos_cache": np.cos(angle).astype(np.float32),
        "sin_cache": np.sin(angle).astype(np.float32),
    }
    outputs = ["output", "present_key", "present_value"]
    model = node_model(
        "GroupQueryAttention", domain, inputs, outputs,
        num_heads=GROUPS, kv_num_heads=KEY_HEADS, do_rotary=1,
    )  # fmt: skip
    session = session_of(model, threads)
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(x) for name, x in inputs.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    result = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(inputs["query"]))
    binding.bind_ortvalue_output("output", result)
    for name in ("key", "value"):
        binding.bind_ortvalue_output(f"present_{name}", values[f"past_{name}"])

    def run() -> np.ndarray:
        session.run_with_iobinding(binding)
        return result.numpy()

    return run


def exported_minilm(folder: Path) -> Any:
    import torch
    import transformers

    from numattn.models import installed_folder

    transformers.logging.set_verbosity_error()
    try:
        model = transformers.AutoModel.from_pretrained(installed_folder())
    except FileNotFoundError:
        torch.manual_seed(0)
        model = transformers.BertModel(
            transformers.BertConfig(
                hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                intermediate_size=1536, max_position_embeddings=512,
            )
        )  # fmt: skip

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    ids = torch.randint(5, 1000, (2, 16))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        Encoder(), (ids, torch.ones_like(ids)), folder / "minilm.onnx", input_names=names,
        output_names=["hidden"], opset_version=23, dynamo=True,
        dynamic_shapes={name: axes for name in names}, verbose=False,
    )  # fmt: skip
    return onnx.load(folder / "minilm.onnx")


def model_run(session: onnxruntime.InferenceSession, batch: int, length: int) -> Run:
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, length))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return lambda: session.run(None, inputs)[0]


def quantised(model: Any, folder: Path) -> Any:
    """Its products alone: the quantiser knows attention of opset 23 by attributes that it lacks."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        model, folder / "integers.onnx", weight_type=QuantType.QInt8, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )  # fmt: skip
    return onnx.load(folder / "integers.onnx")


def integer_rows(model: Any, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from numattn.models import Bert, installed_folder

    exact, ours = (Bert.from_folder(installed_folder(), dtype=each) for each in (None, "w8a8"))
    theirs = session_of(quantised(model, folder), options.threads)
    rows = []
    for batch, length in INTEGERS:
        ids = np.random.default_rng(0).integers(1000, 20000, (batch, length))
        runs: dict[str, Run] = {
            "numattn": lambda ids=ids: ours(ids),
            "com.microsoft": model_run(theirs, batch, length),
        }
        whole = exact(ids)
        errors = [
            float(np.linalg.norm(run() - whole) / np.linalg.norm(whole)) for run in runs.values()
        ]
        row = timed(f"MiniLM in integers B{batch} S{length}", runs, options.repeats)
        print(f"{'':<44}{errors[0]:>22.1e}{errors[1]:>22.1e}   relative errors", flush=True)
        rows.append(row | {"errors": dict(zip(runs, errors, strict=True))})
    return rows


def compared(name: str, runs: dict[str, Run], repeats: int) -> dict[str, Any]:
    results = [run().copy() for run in runs.values()]
    error = max(float(np.abs(x - results[0]).max()) for x in results)
    if not error <= MOST_DIFFERENCE * float(np.abs(results[0]).max()):
        sys.exit(f"{name}: results differ by {error:.1e}")
    return timed(name, runs, repeats, f"   {error:.0e}") | {"difference": error}


def timed(name: str, runs: dict[str, Run], repeats: int, rest: str = "") -> dict[str, Any]:
    seconds: dict[str, list[float]] = {peer: [] for peer in runs}
    for _ in range(repeats):
        for peer, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[peer].append(time.perf_counter() - start)
    times = {peer: 1e3 * statistics.median(each) for peer, each in seconds.items()}
    least = {peer: 1e3 * min(each) for peer, each in seconds.items()}
    ours, theirs = (f"{times[peer]:9.3f} ({least[peer]:.3f})" for peer in PEERS)
    print(f"{name:<44}{ours:>22}{theirs:>22}{rest}", flush=True)
    return {"name": name, "milliseconds": times, "least": least}


def main() -> None:
    options = parse()
    na.set_num_threads(options.threads)
    print(
        f"{na.isa.current()}, {options.threads} thread(s), ONNX Runtime {onnxruntime.__version__}, "
        "float32, ms: median (least)"
    )
    print(f"{'':<44}{'numattn':>22}{'ONNX Runtime':>22}   difference")
    rows = []
    for batch, length in ENCODER:
        runs = {peer: encoder_run(peer, batch, length, options.threads) for peer in PEERS}
        rows.append(compared(f"MultiHeadAttention B{batch} S{length}", runs, options.repeats))
    for batch, length, past in DECODER:
        runs = {peer: decoder_run(peer, batch, length, past, options.threads) for peer in PEERS}
        name = f"GroupQueryAttention B{batch} S{length} after {past}"
        rows.append(compared(name, runs, options.repeats))
    if not options.without_model:
        with tempfile.TemporaryDirectory() as folder:
            model = exported_minilm(Path(folder))
        models = dict(zip(PEERS, (rewrite(model).model, model), strict=True))
        sessions = {peer: session_of(each, options.threads) for peer, each in models.items()}
        for batch, length in MINILM:
            runs = {peer: model_run(each, batch, length) for peer, each in sessions.items()}
            rows.append(compared(f"MiniLM B{batch} S{length}", runs, options.repeats))
        with tempfile.TemporaryDirectory() as folder:
            rows += integer_rows(model, Path(folder), options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
