"""A BERT encoder in plain NumPy, exact or with the roundings of bfloat16, to compare ours with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from numattn import reference
from numattn.models.encoder.bert_config import BertConfig
from numattn.reference.storage import round_to_bfloat16
from tolerance import naive_attention

Array = NDArray[Any]


def run(
    tensors: dict[str, Array], config: BertConfig, ids: Array, rounded: bool
) -> tuple[Array, Array]:
    """Return the hidden states (S, E) of one sequence (S,) and its attention maps (L, H, S, S).

    In float64. With `rounded`, each factor of a product is rounded to bfloat16 before it, as
    anybody would who has bfloat16 weights and keeps sums and norms wider.
    """
    cast: Callable[[Array], Array] = round_to_bfloat16 if rounded else np.asarray
    wide = {name: value.astype(np.float64) for name, value in tensors.items()}

    def norm(x: Array, name: str) -> Array:
        weight, bias = wide[f"{name}.LayerNorm.weight"], wide[f"{name}.LayerNorm.bias"]
        return reference.layer_norm(x, weight, bias, eps=config.layer_norm_eps)

    def dense(x: Array, name: str, activation: str | None = None) -> Array:
        layer = reference.Linear(cast(wide[f"{name}.weight"]), wide[f"{name}.bias"])
        return layer(cast(x), activation=activation)

    def heads(x: Array) -> Array:
        return cast(x.reshape(1, ids.size, config.num_heads, -1).swapaxes(1, 2))

    x = wide["embeddings.word_embeddings.weight"][ids]
    x = x + wide["embeddings.position_embeddings.weight"][config.position_offset :][: ids.size]
    x = norm(x + wide["embeddings.token_type_embeddings.weight"][0], "embeddings")
    maps = []
    for number in range(config.num_layers):
        layer = f"encoder.layer.{number}"
        q, k, v = (
            heads(dense(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        weight = reference.attention_weights(q, k)
        maps.append(weight[0])
        o = naive_attention(weight, v.astype(ml_dtypes.bfloat16)) if rounded else weight @ v
        joined = o.astype(np.float64).swapaxes(1, 2).reshape(x.shape)
        x = norm(dense(joined, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output")
        inner = dense(x, f"{layer}.intermediate.dense", config.activation)
        x = norm(dense(inner, f"{layer}.output.dense") + x, f"{layer}.output")
    return x, np.stack(maps)
