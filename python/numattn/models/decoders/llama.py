"""Decoders of Llama's family on numattn's public API; llama_families.py says which those are.

    x = embedding[token] (· sqrt(E) in Gemma, · a factor in Granite)
    for each layer: x = layer(x)                            llama_layer.py
    logits = norm(x)·Wᵀ (capped in Gemma 2, divided in Granite)

(Touvron et al., LLaMA, 2023; Jiang et al., Mistral 7B, 2023, and Mixtral of Experts, 2024; Yang et
al., Qwen2, 2024, and Qwen3, 2025; Gemma Team, Gemma, 2024, Gemma 2, 2024, and Gemma 3, 2025; Abdin
et al., Phi-3, 2024; OLMo Team, 2 OLMo 2 Furious, 2024; Granite Team, Granite 3.0, 2024; Bakouch et
al., SmolLM3, 2025; OpenAI, gpt-oss, 2025.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from numattn import Linear
from numattn._steps import Steps
from numattn.position import Rope

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.storage import number_dtype
from ..files.tensors import Tensors
from .decoder import Decoder, embed
from .head import read_embedding
from .llama_config import LlamaConfig
from .llama_layer import LlamaLayer, Turn
from .llama_weights import Weights
from .side_by_side import SideBySide
from .step import Attending, Step, places_of
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
        self,
        config: LlamaConfig,
        checkpoint: Tensors,
        dtype: DTypeLike | None = None,
        *,
        head: bool = True,
    ) -> None:
        super().__init__(config, dtype)
        self.config = config
        shape = (config.vocab_size, config.hidden_size)
        checkpoint.check_layers("layers", config.num_layers, "num_hidden_layers")
        self._head: Linear | None = None
        if head:
            self._embedding, self._head = read_embedding(
                checkpoint, "embed_tokens.weight", shape, config.tied, self.storage
            )
        else:  # of a model whose states alone are wanted
            self._embedding = checkpoint.take(
                "embed_tokens.weight", shape, dtype=number_dtype(self.storage)
            )
        self._layers: list[LlamaLayer] = [
            LlamaLayer(checkpoint, number, config, self.storage)
            for number in range(config.num_layers)
        ]
        self._norm = Weights(checkpoint, config, self.storage).norm("norm", config.hidden_size)

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Llama:
        """Load a Hugging Face folder: config.json, and model.safetensors or its shards.

        Code of the folder's own (auto_map) is not run. Where it bears the names of transformers'
        classes for the family, as Phi-3's does, the model is the one of those classes; any other
        is refused, and so are adapters, quantised weights but for GPT-OSS' MXFP4, and two sets of
        weights.

        Parameters
        ----------
        folder : path
            The folder.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
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

    @classmethod
    def from_file(cls, path: str | Path, *, dtype: DTypeLike | None = None) -> Llama:
        """Load a GGUF file as `numattn.models.load` does; ValueError if it holds no Llama."""
        from .gguf import load_gguf  # which makes use of this class

        model = load_gguf(path, dtype=dtype)
        if not isinstance(model, cls):
            raise ValueError(f"{path} holds a {type(model).__name__}, and not a {cls.__name__}")
        return model

    @property
    def switch_length(self) -> int | None:
        return self.config.switch_length

    @property
    def depends_on_length(self) -> bool:
        return any(rope is not None and rope.depends_on_length for rope in self.config.ropes)

    def _hidden(self, ids: Int64Array, step: Step) -> Float32Array:
        x = embed(self._embedding, ids)
        return self._states(x, *places_of(step), step)

    def states(self, ids: Int64Array, texts: SideBySide) -> Float32Array:
        """Return the last layer's normalised states (T, E) for ids (T,) of whole texts.

        Frequencies that depend on a text's length are those of the longest.
        """
        x = embed(self._embedding, ids)[np.newaxis]
        longest = texts.sequences.lengths.max(keepdims=True)
        states = self._states(x, texts.positions, longest, texts)
        return states.reshape(states.shape[1:])

    def _states(
        self, x: Float32Array, places: Int64Array, lengths: Int64Array, step: Attending
    ) -> Float32Array:
        """Return the last layer's normalised states (B, S, E) for embeddings x, which change."""
        if self.config.embedding_scale != 1:
            x *= np.float32(self.config.embedding_scale)
        turns: dict[Rope | None, Turn | None] = {
            rope: None if rope is None else rope.tables(places, length=lengths)
            for rope in set(self.config.ropes)
        }
        rows = x.reshape(-1, x.shape[-1])  # a matrix needs no reshaping in each product
        steps = Steps(step.num_threads)
        for layer, rope in zip(self._layers, self.config.ropes, strict=True):
            layer(rows, turns[rope], step, steps)
            steps.end_layer(len(rows))
        states = self._norm.add_to(steps, rows)
        steps.run()
        return states.reshape(x.shape)

    def _logits(self, hidden: Float32Array, num_threads: int | None) -> Float32Array:
        if self._head is None:
            raise ValueError("this model makes states, and no logits: it has no projection to them")
        logits = self._head(hidden, num_threads=num_threads)
        if self.config.logit_divisor != 1:
            logits /= np.float32(self.config.logit_divisor)
        cap = self.config.logit_softcap
        if cap is not None:
            logits /= cap
            np.tanh(logits, out=logits)
            logits *= cap
        return logits
