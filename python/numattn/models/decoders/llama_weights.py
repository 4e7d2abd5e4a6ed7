"""The weights of a decoder of Llama's family, as its checkpoint names them, made into its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from numattn import Linear

from ..arrays import Float32Array
from ..files.storage import number_dtype
from ..files.tensors import Tensors
from ..norms import RmsNorm
from .feed_forward import Clamped, Experts, FeedForward, Gated
from .llama_config import ExpertConfig, LlamaConfig

Parameters: TypeAlias = tuple[NDArray[Any], Float32Array | None]


@dataclass(frozen=True)
class Weights:
    """A checkpoint, of which parts are made that store their weights in `dtype`."""

    checkpoint: Tensors
    config: LlamaConfig
    dtype: np.dtype[Any]

    def norm(self, name: str, size: int) -> RmsNorm:
        """Return the normalisation whose weight stands under `name`."""
        weight = self.checkpoint.take(f"{name}.weight", (size,))
        weight += np.float32(self.config.norm_offset)
        return RmsNorm(weight, self.config.norm_eps)

    def parameters(self, parts: dict[str, int], columns: int, bias: bool) -> Parameters:
        """Return weight and bias of several parts that read the same; of each, its rows."""
        weight = self.checkpoint.take_joined(
            {f"{part}.weight": (rows, columns) for part, rows in parts.items()},
            number_dtype(self.dtype),
        )
        if not bias:
            return weight, None
        return weight, self.checkpoint.take_joined(
            {f"{part}.bias": (rows,) for part, rows in parts.items()}
        )

    def linear(self, name: str, rows: int, columns: int, bias: bool) -> Linear:
        """Return the projection whose weight stands under `name`."""
        return Linear(*self.parameters({name: rows}, columns, bias), dtype=self.dtype)

    def feed_forward(self, layer: str) -> FeedForward:
        """Return the second half of a layer."""
        config = self.config
        if config.experts is None:
            return self.gated(f"{layer}.mlp", ("gate_proj", "up_proj", "down_proj"))
        if config.experts.kind == "gated":
            name = f"{layer}.block_sparse_moe"
            experts = [
                self.gated(f"{name}.experts.{number}", ("w1", "w3", "w2"))
                for number in range(config.experts.count)
            ]
            return Experts(self.router(f"{name}.gate", bias=False), experts, config.experts.chosen)
        return Experts(
            self.router(f"{layer}.mlp.router", bias=True),
            self.clamped(f"{layer}.mlp.experts", config.experts),
            config.experts.chosen,
        )

    def gated(self, name: str, parts: tuple[str, str, str]) -> Gated:
        """Return a gated MLP whose three projections bear those names."""
        config = self.config
        width, inner, bias = config.hidden_size, config.ffn_size, config.ffn_bias
        gate, up, down = (f"{name}.{part}" for part in parts)
        if config.joined:
            weight, both = self.parameters({f"{name}.gate_up_proj": 2 * inner}, width, bias)
            first, second = (
                Linear(weight[half], None if both is None else both[half], dtype=self.dtype)
                for half in (slice(None, inner), slice(inner, None))
            )
            del weight
        else:
            first, second = (self.linear(part, inner, width, bias) for part in (gate, up))
        return Gated(first, second, self.linear(down, width, inner, bias), config.activation)

    def router(self, name: str, bias: bool) -> Linear:
        """Return the projection to one logit for each expert, float32 in any case."""
        assert self.config.experts is not None
        count, width = self.config.experts.count, self.config.hidden_size
        weight = self.checkpoint.take(f"{name}.weight", (count, width))
        return Linear(weight, self.checkpoint.take(f"{name}.bias", (count,)) if bias else None)

    def clamped(self, name: str, config: ExpertConfig) -> list[Clamped]:
        """Return experts whose weights stand, as (in, out), in one tensor for all.

        Columns of a gate and of the linear part beside it take turns.
        """
        count, width, inner = config.count, self.config.hidden_size, self.config.ffn_size
        read = number_dtype(self.dtype)

        def take(part: str, rows: int, columns: int) -> Parameters:
            weight = self.checkpoint.take(f"{name}.{part}", (count, columns, rows), dtype=read)
            return weight, self.checkpoint.take(f"{name}.{part}_bias", (count, rows))

        both, both_bias = take("gate_up_proj", 2 * inner, width)
        assert both_bias is not None
        halves = [
            [
                Linear(both[number, :, part::2].T, both_bias[number, part::2], dtype=self.dtype)
                for part in (0, 1)
            ]
            for number in range(count)
        ]
        del both
        down, down_bias = take("down_proj", width, inner)
        assert down_bias is not None
        return [
            Clamped(
                gate,
                up,
                Linear(down[number].T, down_bias[number], dtype=self.dtype),
                config.alpha,
                config.limit,
            )
            for number, (gate, up) in enumerate(halves)
        ]
