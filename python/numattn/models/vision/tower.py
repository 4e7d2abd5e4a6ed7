"""A tower: layers one upon the other, and the attention maps in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from numattn import attention_weights
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from ..files.storage import number_dtype
from ..ragged import Ragged
from .tower_config import TowerConfig
from .tower_layer import Layer, LayerNames, Workspace


class Tower:
    """Layers one upon the other; with `is_causal` a token sees those before it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: LayerNames,
        config: TowerConfig,
        storage: str,
        is_causal: bool = False,
    ) -> None:
        checkpoint.check_layers(names.stem, config.num_layers, "num_hidden_layers")
        self.config, self.is_causal, self._number = config, is_causal, number_dtype(storage)
        self._layers = [
            Layer(checkpoint, number, names, config, storage, is_causal)
            for number in range(config.num_layers)
        ]

    def workspace(self, tokens: int) -> Workspace:
        """Return the arrays of a call over so many tokens."""
        return Workspace(tokens, self.config, self._number)

    def run(self, work: Workspace, sequences: Ragged, num_threads: int | None) -> None:
        """Compute the hidden states after the last layer from those in work.x, into work.x."""
        if work.x.size:
            steps = Steps(num_threads)
            for layer in self._layers:
                layer.project(work, steps)
                layer.finish(work, sequences, steps)
            steps.run()

    def attention_weights(
        self,
        work: Workspace,
        layer: int | None,
        head: int | None,
        rows: ArrayLike | None,
        num_threads: int | None,
    ) -> Float32Array:
        """Return the maps of one sequence, whose embeddings are work.x (S, E).

        They are (L, H, R, S), without L if a layer is given and without H if a head is.

        Raises
        ------
        ValueError
            If the layer, the head or a row is out of range.
        """
        config, count = self.config, len(work.x)
        check_index("layer", layer, config.num_layers)
        check_index("head", head, config.num_heads)
        chosen = np.arange(count) if rows is None else np.asarray(rows)
        if chosen.ndim != 1 or not np.all((chosen >= 0) & (chosen < count)):
            raise ValueError(f"rows must be (R,) of 0 … {count - 1}, not {chosen.tolist()}")
        heads = slice(None) if head is None else slice(head, head + 1)
        one = Ragged.of_lengths([count])
        steps = Steps(num_threads)
        maps = []
        for number, part in enumerate(self._layers):
            part.project(work, steps)
            steps.run()
            if layer is None or layer == number:
                maps.append(
                    attention_weights(
                        work.query[:, heads],
                        work.key[:, heads],
                        rows=chosen,
                        is_causal=self.is_causal,
                        layout="bshd",
                        num_threads=num_threads,
                    )
                )
            if layer == number:
                break
            part.finish(work, one, steps)
        result = np.stack(maps) if layer is None else maps[0]
        return result if head is None else result[..., 0, :, :]


def check_index(name: str, value: int | None, count: int) -> None:
    """Raise ValueError if an index counts beyond what there is."""
    if value is not None and not 0 <= value < count:
        raise ValueError(f"{name} must be in 0 … {count - 1}, not {value}")
