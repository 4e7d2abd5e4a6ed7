"""Decoders of GPT-NeoX' family (and Pythia's) on numattn's public API.

    x = embedding[token]
    for each layer:  x = x + attention(norm(x)) + mlp(norm'(x))          both read the same x
                     or, as in GPT-2, one after the other
    logits = norm(x)·Wᵀ

A part of the elements of a head turns, a quarter by default.

(Black et al., "GPT-NeoX-20B: An Open-Source Autoregressive Language Model", 2022; Biderman et al.,
"Pythia", 2023.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numattn import Linear
from numattn._steps import Steps
from numattn.position import Rope

from ..arrays import Float32Array, Int64Array
from ..files.activations import ACTIVATIONS, Activation
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.model_config import read_model_config
from ..files.storage import number_dtype
from ..files.tensors import Tensors
from ..norms import LayerNorm
from .causal import refuse_bidirectional
from .decoder import Decoder, embed
from .head import HEAD, read_embedding
from .llama_positions import read_rope
from .step import Step, places_of
from .text_folder import TextFolder
from .wide_keys import wide_keys

# Rotary frequencies, each layer's triangle of what may be seen, and the number that stood for what
# may not.
IGNORED = r"(.*\.)?layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"
FORMER_HEAD = "embed_out.weight"


@dataclass(frozen=True)
class NeoxConfig:
    """Sizes and choices of a GPT-NeoX."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    activation: Activation
    norm_eps: float
    rope: Rope
    parallel: bool
    """Whether attention and MLP of a layer read the same x."""
    attention_bias: bool
    tied: bool
    """Whether logits are products with the embeddings."""

    @property
    def head_size(self) -> int:
        """Return D, hidden_size / num_heads."""
        return self.hidden_size // self.num_heads

    @property
    def num_kv_heads(self) -> int:
        """Return num_heads: every query head has a key head of its own."""
        return self.num_heads

    @property
    def windows(self) -> tuple[None, ...]:
        """Return None for each layer: a query sees all keys before it."""
        return (None,) * self.num_layers

    @property
    def max_positions(self) -> None:
        """Return None: positions are not learned."""
        return None

    @classmethod
    def from_file(cls, path: Path) -> NeoxConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings, _ = read_model_config(path, {"gpt_neox": "GPTNeoX"})
        refuse_bidirectional(settings)
        width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
        if width % heads:
            raise ValueError(f"{path}: hidden_size {width} does not divide into {heads} heads")
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            num_layers=settings.size("num_hidden_layers"),
            num_heads=heads,
            ffn_size=settings.size("intermediate_size"),
            activation=ACTIVATIONS[settings.one_of("hidden_act", ACTIVATIONS, "gelu")],
            norm_eps=settings.number("layer_norm_eps", 1e-5),
            rope=read_rope(settings, "gpt_neox", width // heads),
            parallel=settings.flag("use_parallel_residual", True),
            attention_bias=settings.flag("attention_bias", True),
            tied=settings.flag("tie_word_embeddings", False),
        )


def read_norm(checkpoint: Tensors, name: str, config: NeoxConfig) -> LayerNorm:
    """Return the normalisation whose parameters stand under `name` in the checkpoint."""
    shape = (config.hidden_size,)
    weight, bias = (checkpoint.take(f"{name}.{part}", shape) for part in ("weight", "bias"))
    return LayerNorm(weight, bias, config.norm_eps)


class NeoxLayer:
    """Layer `number` of a decoder; its weights stored as `storage` says."""

    def __init__(self, checkpoint: Tensors, number: int, config: NeoxConfig, storage: str) -> None:
        name, width, inner = f"layers.{number}", config.hidden_size, config.ffn_size

        def read(
            part: str, rows: int, columns: int, bias: bool = True
        ) -> tuple[NDArray[Any], Float32Array | None]:
            weight = checkpoint.take(
                f"{name}.{part}.weight", (rows, columns), dtype=number_dtype(storage)
            )
            return weight, checkpoint.take(f"{name}.{part}.bias", (rows,)) if bias else None

        def together(rows: NDArray[Any]) -> NDArray[Any]:
            """Return rows of all queries, keys and values, which are a head's each in the file."""
            heads = rows.reshape(config.num_heads, 3, config.head_size, *rows.shape[1:])
            joined: NDArray[Any] = heads.swapaxes(0, 1).reshape(rows.shape)
            return joined

        weight, bias = read("attention.query_key_value", 3 * width, width, config.attention_bias)
        weight, bias = together(weight), None if bias is None else together(bias)
        self.qkv = Linear(weight, bias, dtype=storage)
        norm = self.attention_norm = read_norm(checkpoint, f"{name}.input_layernorm", config)
        self.wide_keys: NDArray[np.bool_] | None = None
        if bias is not None:
            keys, pairs = slice(width, 2 * width), config.rope.dim // 2
            self.wide_keys = wide_keys(
                weight[keys], bias[keys], norm.weight, norm.bias, config.num_heads, pairs
            )
        del weight
        self.output = Linear(
            *read("attention.dense", width, width, config.attention_bias), dtype=storage
        )
        self.up = Linear(*read("mlp.dense_h_to_4h", inner, width), dtype=storage)
        self.down = Linear(*read("mlp.dense_4h_to_h", width, inner), dtype=storage)
        self.ffn_norm = read_norm(checkpoint, f"{name}.post_attention_layernorm", config)
        self.number, self.config = number, config

    def __call__(
        self, x: Float32Array, cos: Float32Array, sin: Float32Array, step: Step, steps: Steps
    ) -> None:
        """Make the layer's result (B·S, E) of x, in its memory.

        What is computed behind attention is left among the steps.
        """
        config = self.config
        qkv = steps.linear(self.qkv, self.attention_norm.add_to(steps, x))
        heads = qkv.reshape(*step.positions.shape, -1, config.head_size)
        steps.rope(heads[:, :, : 2 * config.num_heads], cos, sin)
        steps.run()
        joined = step.attend(self.number, heads, config.num_heads)
        h = self.ffn_norm.add_to(steps, x) if config.parallel else None
        steps.linear(self.output, joined, residual=x, out=x)
        if h is None:
            h = self.ffn_norm.add_to(steps, x)
        inner = steps.linear(self.up, h, activation=config.activation)
        steps.linear(self.down, inner, residual=x, out=x)


class GptNeox(Decoder):
    """A GPT-NeoX, made by `GptNeox.from_folder`.

    Attributes
    ----------
    config : NeoxConfig
        Sizes and choices.

    Examples
    --------
    >>> from numattn.models import GptNeox
    >>> model = GptNeox.from_folder(folder)  # doctest: +SKIP
    >>> model.generate([[510, 3158, 8516, 30013]], 20, stop=0)  # doctest: +SKIP
    """

    def __init__(
        self, config: NeoxConfig, checkpoint: Tensors, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(config, dtype)
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        checkpoint.check_layers("layers", config.num_layers, "num_hidden_layers")
        head = FORMER_HEAD if checkpoint.has(FORMER_HEAD, from_root=True) else HEAD
        self._embedding, self._head = read_embedding(
            checkpoint, "embed_in.weight", shape, config.tied, self.storage, head
        )
        self._layers: list[NeoxLayer] = [
            NeoxLayer(checkpoint, number, config, self.storage)
            for number in range(config.num_layers)
        ]
        self._norm = read_norm(checkpoint, "final_layer_norm", config)

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> GptNeox:
        """Load a Hugging Face folder; arguments and errors are those of `Llama.from_folder`."""
        folder = model_folder(folder)
        config = NeoxConfig.from_file(folder / "config.json")
        checkpoint = Checkpoint(folder / "model.safetensors", "embed_in.weight")
        model = cls(config, checkpoint, dtype)
        checkpoint.finish(IGNORED)
        model.text_source = TextFolder(folder)
        return model

    @property
    def switch_length(self) -> int | None:
        return self.config.rope.switch_length

    @property
    def depends_on_length(self) -> bool:
        return self.config.rope.depends_on_length

    def _hidden(self, ids: Int64Array, step: Step) -> Float32Array:
        x = embed(self._embedding, ids)
        places, lengths = places_of(step)
        cos, sin = self.config.rope.tables(places, length=lengths)
        rows = x.reshape(-1, x.shape[-1])  # a matrix needs no reshaping in each product
        steps = Steps(step.num_threads)
        for layer in self._layers:
            layer(rows, cos, sin, step, steps)
            steps.end_layer(len(rows))
        states = self._norm.add_to(steps, rows)
        steps.run()
        return states.reshape(x.shape)

    def _logits(self, hidden: Float32Array, num_threads: int | None) -> Float32Array:
        return self._head(hidden, num_threads=num_threads)
