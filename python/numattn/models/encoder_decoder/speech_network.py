"""The network of Whisper on numattn's public API.

    frames = gelu(convolution(gelu(convolution(log-mel spectrogram)))) + sines and cosines
    source = encoder(frames)
    text   = decoder(tokens, source)

(Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2023.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import Linear
from numattn._dtypes import storage_name

from ..arrays import Float32Array, Int64Array
from ..files.tensors import Tensors
from .forms import NORM_EPS
from .layers import DecoderLayer, EncoderLayer, read_layer_norm
from .model import EncoderDecoder
from .state import DecoderState
from .tables import embedded, read_table
from .whisper_config import STRIDE, WhisperConfig

STACKS = ("encoder", "decoder")
WIDTH = 3  # frames that a convolution reads


class Convolution:
    """A convolution over time, of WIDTH frames around each, as a product."""

    def __init__(
        self, checkpoint: Tensors, name: str, rows: int, columns: int, stride: int,
        storage: str,
    ) -> None:  # fmt: skip
        weight = checkpoint.take(f"{name}.weight", (rows, columns, WIDTH))
        flat = weight.transpose(0, 2, 1).reshape(rows, WIDTH * columns)
        self.product = Linear(flat, checkpoint.take(f"{name}.bias", (rows,)), dtype=storage)
        self.stride = stride

    def __call__(self, x: Float32Array, num_threads: int | None) -> Float32Array:
        """Return gelu of the result (B, T / stride, rows) for x (B, T, columns)."""
        padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
        size = x.shape[1]
        parts = [padded[:, place : place + size : self.stride] for place in range(WIDTH)]
        return self.product(
            np.concatenate(parts, axis=2), activation="gelu", num_threads=num_threads
        )


class SpeechNetwork(EncoderDecoder):
    """Frames → tokens."""

    def __init__(
        self, config: WhisperConfig, checkpoint: Tensors, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(config, dtype)
        self.config = config
        width, storage = config.hidden_size, storage_name(self._number)
        for stack, count in zip(
            STACKS, (config.encoder_layers, config.decoder_layers), strict=True
        ):
            checkpoint.check_layers(f"{stack}.layers", count, f"{stack}_layers")
        self._convolutions = [
            Convolution(checkpoint, "encoder.conv1", width, config.bands, 1, storage),
            Convolution(checkpoint, "encoder.conv2", width, width, STRIDE, storage),
        ]
        self._places = [
            checkpoint.take(f"{stack}.embed_positions.weight", (count, width))
            for stack, count in zip(
                STACKS, (config.source_positions, config.max_positions), strict=True
            )
        ]
        table = checkpoint.take(
            "decoder.embed_tokens.weight", (config.vocab_size, width), dtype=self._number
        )
        self._tables = [table]
        head = read_table(checkpoint, "proj_out.weight", table, from_root=True)
        self._head = Linear(head, dtype=self.storage)
        del head
        norm = read_layer_norm(NORM_EPS, width)
        self._norms = [norm(checkpoint, f"{stack}.layer_norm") for stack in STACKS]
        self._encoder = [
            EncoderLayer(checkpoint, f"encoder.layers.{number}", config.layer(0), self.storage)
            for number in range(config.encoder_layers)
        ]
        self._decoder = [
            DecoderLayer(checkpoint, f"decoder.layers.{number}", config.layer(1), self.storage)
            for number in range(config.decoder_layers)
        ]

    def encode(self, frames: ArrayLike, *, num_threads: int | None = None) -> DecoderState:
        """Return where the decoder begins for windows of frames (B, bands, T).

        Parameters
        ----------
        frames : float array of shape (B, bands, T)
            Log-mel spectrograms, of exactly a window: T is 2 · max_source_positions.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        ValueError
            If they have another shape.
        """
        given = np.asarray(frames, dtype=np.float32)
        wanted = (self.config.bands, self.config.frames)
        if given.ndim != 3 or given.shape[1:] != wanted or not given.shape[0]:
            raise ValueError(f"frames must be (B, {wanted[0]}, {wanted[1]}), not {given.shape}")
        x = np.ascontiguousarray(given.transpose(0, 2, 1))
        for convolution in self._convolutions:
            x = convolution(x, num_threads)
        x += self._places[0]
        lengths = np.full(x.shape[0], x.shape[1], dtype=np.int64)
        for layer in self._encoder:
            layer(x, lengths, None, num_threads)
        x = self._norms[0](x, num_threads, out=x)
        return self._started(x, lengths, num_threads)

    def _decoded(
        self, ids: Int64Array, state: DecoderState, num_threads: int | None
    ) -> Float32Array:
        x = self._embedded(ids, state)
        for number, (layer, source) in enumerate(zip(self._decoder, state.sources, strict=True)):
            layer(x, state.cache, number, source, state.lengths, None, num_threads)
        return self._norms[1](x, num_threads, out=x)

    def _embedded(self, ids: Int64Array, state: DecoderState) -> Float32Array:
        """Return what the decoder's first layer reads of further tokens (N, S)."""
        x = embedded(self._tables[0], ids, 1.0)
        x += self._places[1][state.position : state.position + ids.shape[1]]
        return x

    def _source_weights(
        self, tokens: Int64Array, state: DecoderState, heads: tuple[tuple[int, int], ...],
        num_threads: int | None,
    ) -> Float32Array:  # fmt: skip
        """Return how much of each place of the source a text's tokens (S,) are, (H, S, T).

        Of the heads of layers that are named. The state is of one source, at its beginning.
        """
        x = self._embedded(tokens[np.newaxis], state)
        found: dict[int, Float32Array] = {}
        for number in range(1 + max(layer for layer, _ in heads)):
            shares = self._decoder[number](
                x, state.cache, number, state.sources[number], state.lengths, None, num_threads,
                weights=any(layer == number for layer, _ in heads),
            )  # fmt: skip
            if shares is not None:
                found[number] = shares[0]
        return np.stack([found[layer][head] for layer, head in heads])
