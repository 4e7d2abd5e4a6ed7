"""Decoders of GPT-2's family on numattn's public API.

    x = embedding[token] + position[p]
    for each layer:  x = x + attention(norm(x)·Wqkv + bqkv)·Wo + bo      heads split and joined
                     x = x + activation(norm(x)·Wup + bup)·Wdown + bdown
    logits = norm(x)·embeddingᵀ

(Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from numattn import Linear
from numattn._steps import Steps

from ..arrays import Float32Array, Int64Array
from ..files.activations import ACTIVATIONS, Activation
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.model_config import read_model_config
from ..files.settings import Settings
from ..files.storage import number_dtype
from ..files.tensors import Tensors
from ..norms import LayerNorm
from .causal import refuse_bidirectional
from .decoder import Decoder, embed
from .head import read_embedding
from .step import Step
from .text_folder import TextFolder
from .wide_keys import wide_keys

# Each layer's triangle of what may be seen, and the number that stood for what may not.
IGNORED = r"(.*\.)?h\.\d+\.attn\.(bias|masked_bias)"


@dataclass(frozen=True)
class GptConfig:
    """Sizes and choices of a GPT-2."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    max_positions: int
    activation: Activation
    norm_eps: float
    scales: tuple[float, ...]
    """Of the scores of each layer."""
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

    @classmethod
    def from_file(cls, path: Path) -> GptConfig:
        """Read a config.json.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not JSON, lacks a size, or asks for something that is not supported.
        """
        settings, _ = read_model_config(path, {"gpt2": "GPT2"})
        return cls.from_settings(settings)

    @classmethod
    def from_settings(cls, settings: Settings) -> GptConfig:
        """Return what settings say, or raise ValueError."""
        path = settings.path
        settings.one_of("add_cross_attention", (False,), False)
        refuse_bidirectional(settings)
        width, heads = settings.size("n_embd"), settings.size("n_head")
        if width % heads:
            raise ValueError(f"{path}: n_embd {width} does not divide into {heads} heads")
        layers = settings.size("n_layer")
        scale = (width // heads) ** -0.5 if settings.flag("scale_attn_weights", True) else 1.0
        by_layer = settings.flag("scale_attn_by_inverse_layer_idx", False)
        return cls(
            vocab_size=settings.size("vocab_size"),
            hidden_size=width,
            num_layers=layers,
            num_heads=heads,
            ffn_size=settings.size("n_inner", 4 * width),
            max_positions=settings.size("n_positions"),
            activation=ACTIVATIONS[settings.one_of("activation_function", ACTIVATIONS, "gelu_new")],
            norm_eps=settings.number("layer_norm_epsilon", 1e-5),
            scales=tuple(scale / (layer + 1 if by_layer else 1) for layer in range(layers)),
            tied=settings.flag("tie_word_embeddings", True),
        )


def read_norm(checkpoint: Tensors, name: str, config: GptConfig) -> LayerNorm:
    """Return the normalisation whose parameters stand under `name` in the checkpoint."""
    shape = (config.hidden_size,)
    weight, bias = (checkpoint.take(f"{name}.{part}", shape) for part in ("weight", "bias"))
    return LayerNorm(weight, bias, config.norm_eps)


class GptLayer:
    """Layer `number` of a decoder; its weights stored as `storage` says."""

    def __init__(self, checkpoint: Tensors, number: int, config: GptConfig, storage: str) -> None:
        name, width, inner = f"h.{number}", config.hidden_size, config.ffn_size

        def read(part: str, columns: int, rows: int) -> tuple[NDArray[Any], Float32Array]:
            """Return weight and bias of a projection that is stored as (in, out)."""
            weight = checkpoint.take(
                f"{name}.{part}.weight", (columns, rows), dtype=number_dtype(storage)
            )
            return weight.T, checkpoint.take(f"{name}.{part}.bias", (rows,))

        def linear(part: str, columns: int, rows: int) -> Linear:
            return Linear(*read(part, columns, rows), dtype=storage)

        weight, bias = read("attn.c_attn", width, 3 * width)
        self.qkv = Linear(weight, bias, dtype=storage)
        norm = self.attention_norm = read_norm(checkpoint, f"{name}.ln_1", config)
        keys = slice(width, 2 * width)
        self.wide_keys = wide_keys(
            weight[keys], bias[keys], norm.weight, norm.bias, config.num_heads, pairs=0
        )
        del weight
        self.output = linear("attn.c_proj", width, width)
        self.up = linear("mlp.c_fc", width, inner)
        self.down = linear("mlp.c_proj", inner, width)
        self.ffn_norm = read_norm(checkpoint, f"{name}.ln_2", config)
        self.number, self.config = number, config

    def __call__(self, x: Float32Array, step: Step, steps: Steps) -> None:
        """Make the layer's result (B·S, E) of x, in its memory.

        What is computed behind attention is left among the steps.
        """
        config = self.config
        qkv = steps.linear(self.qkv, self.attention_norm.add_to(steps, x))
        steps.run()
        heads = qkv.reshape(*step.positions.shape, -1, config.head_size)
        joined = step.attend(self.number, heads, config.num_heads, scale=config.scales[self.number])
        steps.linear(self.output, joined, residual=x, out=x)
        inner = steps.linear(self.up, self.ffn_norm.add_to(steps, x), activation=config.activation)
        steps.linear(self.down, inner, residual=x, out=x)


class Gpt(Decoder):
    """A GPT-2, made by `Gpt.from_folder`.

    Attributes
    ----------
    config : GptConfig
        Sizes and choices.

    Examples
    --------
    >>> from numattn.models import Gpt
    >>> model = Gpt.from_folder(folder)  # doctest: +SKIP
    >>> model.generate([[464, 2068, 7586, 21831]], 20, stop=50256)  # doctest: +SKIP
    """

    def __init__(
        self, config: GptConfig, checkpoint: Tensors, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(config, dtype)
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        checkpoint.check_layers("h", config.num_layers, "n_layer")
        self._embedding, self._head = read_embedding(
            checkpoint, "wte.weight", shape, config.tied, self.storage
        )
        self._position = checkpoint.take("wpe.weight", (config.max_positions, config.hidden_size))
        self._layers: list[GptLayer] = [
            GptLayer(checkpoint, number, config, self.storage)
            for number in range(config.num_layers)
        ]
        self._norm = read_norm(checkpoint, "ln_f", config)

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Gpt:
        """Load a Hugging Face folder; arguments and errors are those of `Llama.from_folder`."""
        folder = model_folder(folder)
        config = GptConfig.from_file(folder / "config.json")
        checkpoint = Checkpoint(folder / "model.safetensors", "wte.weight")
        model = cls(config, checkpoint, dtype)
        checkpoint.finish(IGNORED)
        model.text_source = TextFolder(folder)
        return model

    def _hidden(self, ids: Int64Array, step: Step) -> Float32Array:
        x = embed(self._embedding, ids)
        # Only positions of padding lie beyond the table.
        x += np.take(self._position, step.positions, axis=0, mode="clip")
        rows = x.reshape(-1, x.shape[-1])  # a matrix needs no reshaping in each product
        steps = Steps(step.num_threads)
        for layer in self._layers:
            layer(rows, step, steps)
            steps.end_layer(len(rows))
        states = self._norm.add_to(steps, rows)
        steps.run()
        return states.reshape(x.shape)

    def _logits(self, hidden: Float32Array, num_threads: int | None) -> Float32Array:
        return self._head(hidden, num_threads=num_threads)
