"""Decoders of Llama's family on numattn's public API: Llama, Mistral, Qwen-2, Gemma-2, Phi-3.

    x = embedding[token] (· sqrt(E) in Gemma-2)
    for each layer: x = layer(x)                            llama_layer.py
    logits = norm(x)·Wᵀ (capped in Gemma-2)

(Touvron et al., LLaMA, 2023; Jiang et al., Mistral 7B, 2023; Yang et al., Qwen2, 2024; Gemma Team,
Gemma 2, 2024; Abdin et al., Phi-3, 2024.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from .decoder import Decoder, embed
from .head import read_embedding
from .llama_config import LlamaConfig
from .llama_layer import LlamaLayer, read_norm
from .step import Step
from .text_folder import TextFolder

# Rotary frequencies, which the configuration gives.
IGNORED = r".*\.rotary_emb\.inv_freq"


class Llama(Decoder):
    """A decoder of Llama's family, made by `Llama.from_folder`.

    Attributes
    ----------
    config : LlamaConfig
        Sizes and choices.

    Notes
    -----
    With "dynamic" or "longrope" rotary positions, a token is turned by the frequencies for the
    length that its row had when it was read, as in transformers. So a text that is read in parts
    differs from one read at once if it passes the length that the model was trained with, unless
    each part is told of the whole (`text_lengths`). `generate` tells all parts of a prompt, and
    reads a text anew when it grows beyond the `switch_length` of "longrope".

    Examples
    --------
    >>> from numattn.models import Llama
    >>> model = Llama.from_folder(folder, dtype="bfloat16")  # doctest: +SKIP
    >>> cache = model.new_cache(batch=1)  # doctest: +SKIP
    >>> logits = model([[1, 5, 7]], cache=cache)  # doctest: +SKIP
    >>> logits = model([[9]], cache=cache)  # doctest: +SKIP
    """

    def __init__(
        self, config: LlamaConfig, checkpoint: Checkpoint, dtype: DTypeLike | None = None
    ) -> None:
        super().__init__(config, dtype)
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        checkpoint.check_layers("layers", config.num_layers, "num_hidden_layers")
        self._embedding, self._head = read_embedding(
            checkpoint, "embed_tokens.weight", shape, config.tied, self.dtype
        )
        self._layers: list[LlamaLayer] = [
            LlamaLayer(checkpoint, number, config, self.dtype)
            for number in range(config.num_layers)
        ]
        self._norm = read_norm(checkpoint, "norm", config)

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Llama:
        """Load a Hugging Face folder: config.json, and model.safetensors or its shards.

        Code of the folder's own (auto_map) is not run. Where it bears the names of transformers'
        classes for the family, as Phi-3's does, the model is the one of those classes; any other
        is refused, and so are adapters, quantised weights, and two sets of weights.

        Parameters
        ----------
        folder : path
            The folder.
        dtype : {None, float32, bfloat16, int8}
            How weights are stored, and keys and values unless a cache is made otherwise: float32 by
            default. Hidden states and sums are float32 in all three, and beside int8 the table of
            embeddings, keys and values as well.

        Raises
        ------
        FileNotFoundError
            If the folder or one of the files is missing.
        ImportError
            If safetensors is not installed, or ml_dtypes for bfloat16.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the configuration or `dtype` asks for something that is not
            supported. The message names it.
        """
        folder = model_folder(folder)
        config = LlamaConfig.from_file(folder / "config.json")
        checkpoint = Checkpoint(folder / "model.safetensors", "embed_tokens.weight")
        model = cls(config, checkpoint, dtype)
        checkpoint.finish(IGNORED)
        model.text_source = TextFolder(folder)
        return model

    @property
    def switch_length(self) -> int | None:
        return self.config.rope.switch_length

    def _hidden(self, ids: Int64Array, step: Step) -> Float32Array:
        x = embed(self._embedding, ids)
        if self.config.gemma:
            x *= np.float32(np.sqrt(self.config.hidden_size))
        # Only tokens of padding lie beyond the length of their row.
        lengths = np.maximum(step.lengths, 1)
        places = np.minimum(step.positions, lengths[:, np.newaxis] - 1)
        cos, sin = self.config.rope.tables(places, length=lengths)
        rows = x.reshape(-1, x.shape[-1])  # a matrix needs no reshaping in each product
        for layer in self._layers:
            rows = layer(rows, cos, sin, step)
        return self._norm(rows, step.num_threads).reshape(x.shape)

    def _logits(self, hidden: Float32Array, num_threads: int | None) -> Float32Array:
        logits = self._head(hidden, num_threads=num_threads)
        cap = self.config.logit_softcap
        if cap is not None:
            logits /= cap
            np.tanh(logits, out=logits)
            logits *= cap
        return logits
