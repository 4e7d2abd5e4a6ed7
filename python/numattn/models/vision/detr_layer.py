"""The layers of a DETR: positions are added to what makes queries and keys, and not to values.

encoder    x = norm(x + attention(x + p, x + p, x));  x = norm(x + feed-forward(x))
decoder    the same over object queries q, with their own positions; and between the two
           x = norm(x + attention(x + q, memory + p, memory))
"""

from __future__ import annotations

import numpy as np

from numattn import attention, attention_weights
from numattn._aligned import empty
from numattn._steps import Steps

from ..arrays import Float32Array
from ..files.checkpoint import Checkpoint
from .tower_config import TowerConfig
from .tower_layer import FeedForward, read_linear, read_norm


class Attention:
    """Attention from x (N, S, E) to a memory (N, M, E), with positions, and x added to it."""

    def __init__(
        self, checkpoint: Checkpoint, name: str, config: TowerConfig, storage: str
    ) -> None:
        self._heads = (config.num_heads, config.head_size)
        shape = (config.hidden_size, config.hidden_size)
        self._query, self._key, self._value, self._output = (
            read_linear(checkpoint, [f"{name}.{part}"], shape, storage)
            for part in ("q_proj", "k_proj", "v_proj", "out_proj")
        )

    def _split(self, x: Float32Array) -> Float32Array:
        """Return (N, S, E) as (N, S, H, D)."""
        return x.reshape(*x.shape[:2], *self._heads)

    def __call__(
        self,
        x: Float32Array,
        memory: Float32Array,
        positions: Float32Array,
        memory_positions: Float32Array,
        num_threads: int | None,
    ) -> Float32Array:
        """Return x and what is gathered from the memory (N, S, E)."""
        query = self._query(x + positions, num_threads=num_threads)
        key = self._key(memory + memory_positions, num_threads=num_threads)
        value = self._value(memory, num_threads=num_threads)
        gathered = attention(
            self._split(query),
            self._split(key),
            self._split(value),
            layout="bshd",
            num_threads=num_threads,
        )
        result: Float32Array = self._output(
            gathered.reshape(x.shape), residual=x, num_threads=num_threads
        )
        return result

    def weights(
        self,
        x: Float32Array,
        memory: Float32Array,
        positions: Float32Array,
        memory_positions: Float32Array,
        num_threads: int | None,
    ) -> Float32Array:
        """Return how much each row of x weighs the memory (N, H, S, M)."""
        query = self._query(x + positions, num_threads=num_threads)
        key = self._key(memory + memory_positions, num_threads=num_threads)
        return attention_weights(
            self._split(query), self._split(key), layout="bshd", num_threads=num_threads
        )


class Half:
    """One layer of the encoder, or of the decoder, which also looks at the encoder's memory."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        name: str,
        config: TowerConfig,
        storage: str,
        is_decoder: bool,
    ) -> None:
        self._own = Attention(checkpoint, f"{name}.self_attn", config, storage)
        self._own_norm = read_norm(checkpoint, f"{name}.self_attn_layer_norm", config)
        self.cross = None
        if is_decoder:
            self.cross = Attention(checkpoint, f"{name}.encoder_attn", config, storage)
            self._cross_norm = read_norm(checkpoint, f"{name}.encoder_attn_layer_norm", config)
        self._feed_forward = FeedForward(checkpoint, f"{name}.fc1", f"{name}.fc2", config, storage)
        self._last_norm = read_norm(checkpoint, f"{name}.final_layer_norm", config)

    def look_around(
        self, x: Float32Array, positions: Float32Array, num_threads: int | None
    ) -> Float32Array:
        """Return x (N, S, E) after the attention to itself."""
        x = self._own(x, x, positions, positions, num_threads)
        return self._own_norm(x, num_threads, out=x)

    def look_at(
        self,
        x: Float32Array,
        memory: Float32Array,
        positions: Float32Array,
        memory_positions: Float32Array,
        num_threads: int | None,
    ) -> Float32Array:
        """Return x (N, S, E) of a decoder after the attention to the memory."""
        assert self.cross is not None
        x = self.cross(x, memory, positions, memory_positions, num_threads)
        return self._cross_norm(x, num_threads, out=x)

    def finish(self, x: Float32Array, num_threads: int | None) -> Float32Array:
        """Return x (N, S, E) after the feed-forward part."""
        flat = x.reshape(-1, x.shape[-1])
        inner = empty((len(flat), self._feed_forward.up.out_features), np.float32)
        out = empty(flat.shape, np.float32)
        steps = Steps(num_threads)
        self._feed_forward(flat, inner, flat, out, steps)
        self._last_norm.add_to(steps, out, out=out)
        steps.run()
        normed: Float32Array = out.reshape(x.shape)
        return normed


def sine_positions(rows: int, columns: int, width: int) -> Float32Array:
    """Return the positions (rows · columns, width) of a map of features.

    Half of them say the row, half the column: sines and cosines in turns of places 1 … n, of which
    n is 2π.
    """
    half = width // 2

    def waves(count: int) -> Float32Array:
        place = np.arange(1, count + 1, dtype=np.float32)
        place = place / (place[-1] + np.float32(1e-6)) * np.float32(2 * np.pi)
        power = np.float32(10000) ** (2 * (np.arange(half) // 2) / np.float32(half))
        angle: Float32Array = place[:, np.newaxis] / power.astype(np.float32)
        angle[:, 0::2], angle[:, 1::2] = np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])
        return angle

    down = np.broadcast_to(waves(rows)[:, np.newaxis], (rows, columns, half))
    along = np.broadcast_to(waves(columns), (rows, columns, half))
    positions: Float32Array = np.concatenate([down, along], axis=2).reshape(-1, width)
    return positions
