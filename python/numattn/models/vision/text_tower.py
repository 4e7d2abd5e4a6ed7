"""The half of a CLIP or SigLIP that reads texts.

x = token + position;  layers;  x = norm(x)
CLIP      each token sees those before it; vector = (x of the first end mark)·Wᵀ
SigLIP    each token sees all, padding too; vector = (x of the last token)·Wᵀ + b
"""

from __future__ import annotations

import numpy as np

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..ragged import Ragged
from .clip_config import ClipConfig, layer_names
from .tower import Tower
from .tower_layer import Workspace, read_linear, read_norm

STEM = "text_model"
# Files from before the end mark was in the configuration say 2, which it was not.
UNTOLD_END = 2


class TextTower:
    """Token ids → hidden states, and vectors that are not yet scaled."""

    def __init__(self, checkpoint: Checkpoint, config: ClipConfig, storage: str) -> None:
        width = config.text.hidden_size
        self._config = config
        self._tokens = checkpoint.take(
            f"{STEM}.embeddings.token_embedding.weight", (config.vocab_size, width)
        )
        self._positions = checkpoint.take(
            f"{STEM}.embeddings.position_embedding.weight", (config.max_positions, width)
        )
        self.tower = Tower(
            checkpoint, layer_names(STEM), config.text, storage, is_causal=not config.is_siglip
        )
        self._norm = read_norm(checkpoint, f"{STEM}.final_layer_norm", config.text)
        name = f"{STEM}.head" if config.is_siglip else "text_projection"
        self._projection = read_linear(
            checkpoint, [name], (config.vector_size, width), storage, bias=config.is_siglip
        )

    def embed(self, ids: Int64Array, sequences: Ragged) -> Workspace:
        """Return the activations of a call, with x holding what the first layer reads."""
        work = self.tower.workspace(ids.size)
        # The ids are in range, and "clip" spares take() a buffered copy of the result.
        np.take(self._tokens, ids, axis=0, out=work.x, mode="clip")
        work.x += self._positions[sequences.positions()]
        return work

    def states(self, ids: Int64Array, sequences: Ragged, num_threads: int | None) -> Float32Array:
        """Return the hidden states (T, E) of tokens (T,), which are checked."""
        work = self.embed(ids, sequences)
        self.tower.run(work, sequences, num_threads)
        return self._norm(work.x, num_threads, out=work.x)

    def vectors(self, ids: Int64Array, sequences: Ragged, num_threads: int | None) -> Float32Array:
        """Return the vectors (N, P) of N texts of one token or more each.

        Raises
        ------
        ValueError
            If a text of CLIP has no end mark.
        """
        places = self._places(ids, sequences)
        chosen = self.states(ids, sequences, num_threads)[places]
        projected: Float32Array = self._projection(chosen, num_threads=num_threads)
        return projected

    def _places(self, ids: Int64Array, sequences: Ragged) -> Int64Array:
        """Return which token stands for each text (N,)."""
        starts, end = sequences.starts, self._config.eos_token_id
        if self._config.is_siglip:
            return starts[1:] - 1
        places = np.empty(starts.size - 1, np.int64)
        for text, (begin, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            own = ids[begin:stop]
            if end == UNTOLD_END:
                places[text] = begin + own.argmax()
                continue
            marks = np.flatnonzero(own == end)
            if marks.size == 0:
                raise ValueError(f"text {text} has no end mark, token {end}: {own.tolist()}")
            places[text] = begin + marks[0]
        return places
