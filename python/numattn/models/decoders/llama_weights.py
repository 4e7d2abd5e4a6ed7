"""The weights of a decoder of Llama's family, as its checkpoint names them, made into its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numattn import Linear

from ..arrays import Float32Array
from ..files.integers import Integers
from ..files.mxfp4 import BLOCK, dequantised
from ..files.storage import number_dtype
from ..files.tensors import Tensors
from ..norms import RmsNorm
from .feed_forward import Clamped, Experts, FeedForward, Gated
from .llama_config import ExpertConfig, LlamaConfig


@dataclass(frozen=True)
class Weights:
    """A checkpoint, of which parts are made that store their weights in `dtype`."""

    checkpoint: Tensors
    config: LlamaConfig
    storage: str

    def norm(self, name: str, size: int) -> RmsNorm:
        """Return the normalisation whose weight stands under `name`."""
        weight = self.checkpoint.take(f"{name}.weight", (size,))
        weight += np.float32(self.config.norm_offset)
        return RmsNorm(weight, self.config.norm_eps)

    def weight(self, parts: dict[str, int], columns: int) -> NDArray[Any]:
        """Return the weight of several parts that read the same, as floats; of each, its rows."""
        return self.checkpoint.take_joined(
            {f"{part}.weight": (rows, columns) for part, rows in parts.items()},
            number_dtype(self.storage),
        )

    def biases(self, parts: dict[str, int], bias: bool) -> Float32Array | None:
        """Return the biases of several parts as one, if there are any."""
        if not bias:
            return None
        return self.checkpoint.take_joined(
            {f"{part}.bias": (rows,) for part, rows in parts.items()}
        )

    def kept(self, parts: dict[str, int], columns: int) -> list[Integers] | None:
        """Return the weights of parts that a file's integers are kept of; None if of any not."""
        found = []
        for part, rows in parts.items():
            integers = self.checkpoint.take_integers(f"{part}.weight", (rows, columns))
            if integers is None:
                return None
            found.append(integers)
        return found

    def linear(self, name: str, rows: int, columns: int, bias: bool) -> Linear:
        """Return the projection whose weight stands under `name`."""
        part = {name: rows}
        kept, own = self.kept(part, columns), self.biases(part, bias)
        if kept is not None:
            return Linear.from_integers(*kept[0], bias=own)
        return Linear(self.weight(part, columns), own, dtype=self.storage)

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
            first, second = self.halves({f"{name}.gate_up_proj": 2 * inner}, width, bias)
        else:
            first, second = (self.linear(part, inner, width, bias) for part in (gate, up))
        return Gated(first, second, self.linear(down, width, inner, bias), config.activation)

    def halves(self, part: dict[str, int], columns: int, bias: bool) -> list[Linear]:
        """Return the projections of the first half of a part's rows, and of the second."""
        (rows,) = part.values()
        chosen = slice(None, rows // 2), slice(rows // 2, None)
        kept, both = self.kept(part, columns), self.biases(part, bias)
        biases = [None if both is None else both[half] for half in chosen]
        halves = zip(chosen, biases, strict=True)
        if kept is not None:
            return [Linear.from_integers(*kept[0].rows(half), bias=own) for half, own in halves]
        weight = self.weight(part, columns)
        return [Linear(weight[half], own, dtype=self.storage) for half, own in halves]

    def router(self, name: str, bias: bool) -> Linear:
        """Return the projection to one logit for each expert, float32 in any case."""
        assert self.config.experts is not None
        count, width = self.config.experts.count, self.config.hidden_size
        weight = self.checkpoint.take(f"{name}.weight", (count, width))
        return Linear(weight, self.checkpoint.take(f"{name}.bias", (count,)) if bias else None)

    def clamped(self, name: str, config: ExpertConfig) -> list[Clamped]:
        """Return experts whose weights stand in one tensor for all.

        Columns of a gate and of the linear part beside it take turns.
        """
        count, width, inner = config.count, self.config.hidden_size, self.config.ffn_size
        weight, bias = self.for_all(f"{name}.gate_up_proj", count, 2 * inner, width)
        halves = []
        for number in range(count):
            both, both_bias = weight(number), bias[number]
            halves.append(
                [Linear(both[part::2], both_bias[part::2], dtype=self.storage) for part in (0, 1)]
            )
        del weight
        weight, bias = self.for_all(f"{name}.down_proj", count, width, inner)
        return [
            Clamped(
                gate,
                up,
                Linear(weight(number), bias[number], dtype=self.storage),
                config.alpha,
                config.limit,
            )
            for number, (gate, up) in enumerate(halves)
        ]

    def for_all(
        self, name: str, count: int, rows: int, columns: int
    ) -> tuple[Callable[[int], NDArray[Any]], Float32Array]:
        """Return what gives an expert's weight (rows, columns), and the biases of all.

        A tensor of floats has weights as (in, out); one of MXFP4 has rows as they are used.
        """
        bias = self.checkpoint.take(f"{name}_bias", (count, rows))
        if not self.checkpoint.has(f"{name}_blocks"):
            floats = self.checkpoint.take(
                name, (count, columns, rows), dtype=number_dtype(self.storage)
            )
            return lambda number: floats[number].T, bias
        if columns % BLOCK != 0:
            raise ValueError(f"MXFP4 has blocks of {BLOCK} numbers, and {name} rows of {columns}")
        blocks = self.checkpoint.take_bytes(
            f"{name}_blocks", (count, rows, columns // BLOCK, BLOCK // 2)
        )
        scales = self.checkpoint.take_bytes(f"{name}_scales", (count, rows, columns // BLOCK))
        return lambda number: dequantised(blocks[number], scales[number]), bias
