"""What encoders of texts share, whatever their layers are.

    x = embedded tokens
    for each layer: x = layer(x)
    vector of a text = pooling(x)                    text_encoder.py

Sequences of any lengths lie one after the other, and attention knows by prefix sums where each
begins: no padding is computed, there is no mask, and nothing of the size S × S. What a sequence
becomes does not depend on those beside it, bit by bit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import attention_weights
from numattn._dtypes import storage_name
from numattn._steps import Steps

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.storage import storage_dtype
from ..ids import check_ids
from ..lengths import check_lengths, lengths_of_mask, refuse_both
from ..ragged import Ragged
from .bert_layer import Workspace
from .config import EncoderConfig
from .pooling import POOLINGS, Pooling, mean_of_tokens
from .sentence_folder import SentenceFolder
from .text_encoder import TextEncoder
from .tokenizer import read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Whose tokenizers other families have, too.
TOKENIZERS = ("Bert", "Roberta", "XLMRoberta", "Camembert")

E = TypeVar("E", bound="Encoder")


class EncoderLayer(Protocol):
    """A layer in two steps, so that attention maps can be taken between."""

    window: int | None

    def project(self, work: Any, steps: Steps) -> None:
        """Compute work.query, work.key and work.value from work.x."""

    def finish(self, work: Any, sequences: Ragged, steps: Steps) -> None:
        """Compute the layer's result from these and work.x, into work.x."""


class Encoder(TextEncoder):
    """An encoder: token ids → hidden states, texts → vectors.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and choices.
    tokenizer : tokenizers.Tokenizer
        Texts → token ids. It cuts a text to `max_tokens` tokens. Where the folder has none, asking
        for it is a FileNotFoundError.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    storage : str
        The same by its name, which tells "w8a8" from "int8" (see :class:`numattn.Linear`).
    prompt : str
        What `encode` puts before every text: the folder's default prompt, "" in most.
    """

    FAMILIES: ClassVar[Mapping[str, str]]
    """Each model_type that is carried out → what the names of its classes begin with."""
    ANCHOR: ClassVar[str]
    """A tensor that every file has."""
    IGNORED: ClassVar[str]
    """The names of tensors that are no part of the encoder."""

    _layers: Sequence[EncoderLayer]

    def __init__(
        self,
        config: EncoderConfig,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer | str,
        pooling: Pooling,
        dtype: DTypeLike | None = None,
        prompt: str = "",
    ) -> None:
        self.storage = storage_name(dtype)
        self.dtype = storage_dtype(self.storage)
        super().__init__(config, tokenizer, pooling, prompt)
        self._read(checkpoint)

    @classmethod
    @abstractmethod
    def read_config(cls, path: Path) -> EncoderConfig:
        """Read a config.json."""

    @abstractmethod
    def _read(self, checkpoint: Checkpoint) -> None:
        """Take the weights, the layers among them as `_layers`."""

    @abstractmethod
    def _embed(
        self,
        ids: Int64Array,
        types: Int64Array | None,
        sequences: Ragged,
        steps: Steps,
    ) -> Workspace:
        """Return the activations of a call, with x to hold the embedded tokens (T,)."""

    def _finish(self, work: Workspace, steps: Steps) -> None:
        """Make hidden states of work.x, once the layers are through."""

    @classmethod
    def from_folder(cls: type[E], folder: str | Path, *, dtype: DTypeLike | None = None) -> E:
        """Load a Hugging Face folder: config.json, its weights and its tokenizer.

        Weights are those of model.safetensors, or else of pytorch_model.bin (which runs no code);
        the tokenizer is tokenizer.json, or else a vocabulary (vocab.txt, vocab.json and
        merges.txt, a model of sentencepiece's). Without one, the model takes token ids alone.

        What else transformers and sentence-transformers read of it is honoured, in the layouts of
        now and of before: how `encode` pools (mean or cls), how many tokens a text may have and
        which end is cut, lower case, and a default prompt. Weights in float16, bfloat16 or float64
        become float32. Heads for other tasks (a pooler, a masked language model's) are left out.
        Code of the folder's own (auto_map) is not run, and refused unless it bears the names of
        transformers' classes for the family.

        Parameters
        ----------
        folder : path
            The folder.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How the layers store their weights: float32 by default. With bfloat16 (``"bfloat16"`` or
            ``ml_dtypes.bfloat16``), projections, joined heads and feed-forward activations are
            bfloat16 arrays too; embeddings, hidden states, sums and norms stay float32. With int8
            (as :class:`numattn.Linear` has it) all of these are float32.

        Raises
        ------
        FileNotFoundError
            If the folder or a file is missing. Nothing is downloaded.
        ImportError
            If safetensors or tokenizers is not installed, ml_dtypes for bfloat16, or sentencepiece
            where the tokenizer is one of its models.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the folder or `dtype` asks for something that is not supported.
            The message names it.
        """
        model, checkpoint = cls.opened(folder, dtype)
        checkpoint.finish(cls.IGNORED)
        return model

    @classmethod
    def opened(
        cls: type[E], folder: str | Path, dtype: DTypeLike | None = None
    ) -> tuple[E, Checkpoint]:
        """Return the model of a folder, and the checkpoint with what the model has not taken."""
        sentences = SentenceFolder.read(model_folder(folder))
        model_folder(sentences.model)  # which may be a folder in it
        return cls.opened_at(
            *(sentences.model, sentences.max_tokens, sentences.lower_case),
            pooling=POOLINGS[sentences.pooling],
            dtype=dtype,
            prompt=sentences.prompt,
        )

    @classmethod
    def opened_at(
        cls: type[E],
        model: Path,
        max_tokens: int | None,
        lower_case: bool,
        *,
        pooling: Pooling = mean_of_tokens,
        dtype: DTypeLike | None = None,
        prompt: str = "",
    ) -> tuple[E, Checkpoint]:
        """Return the model whose files stand in a folder, and its checkpoint."""
        config = cls.read_config(model / "config.json")
        stems = (*cls.FAMILIES.values(), *TOKENIZERS)
        tokenizer: Tokenizer | str
        try:
            tokenizer = read_tokenizer(model, config.max_positions, max_tokens, lower_case, stems)
        except FileNotFoundError as error:
            tokenizer = str(error)
        checkpoint = Checkpoint(model / "model.safetensors", cls.ANCHOR)
        return cls(config, checkpoint, tokenizer, pooling, dtype, prompt), checkpoint

    def __call__(
        self,
        token_ids: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the hidden states of the last layer.

        Parameters
        ----------
        token_ids : int array (B, S)
            Row b holds lengths[b] tokens and then padding, any valid ids, which is not computed.
        lengths : int array (B,), optional
            Real tokens of each row, 0 … S; S by default.
        attention_mask : array (B, S), optional
            The same in Hugging Face's form: nonzero for a real token. Padding must be on the right.
        token_type_ids : int array (B, S), optional
            0 by default.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (B, S, E)
            Rows of padding are 0. Those of a sequence's tokens are bitwise what they are if it is
            alone, for any number of threads.

        Raises
        ------
        TypeError
            If ids or lengths are not integers.
        ValueError
            If the shapes do not fit, an id or a length is out of range, S exceeds the model's
            positions, or the mask is not one of padding on the right.
        """
        ids = self._check_ids(token_ids, "token_ids", self.config.vocab_size)
        types = None
        if token_type_ids is not None:
            if self.config.type_vocab_size == 0:
                raise ValueError("token_type_ids are given, but the model's tokens have no types")
            types = self._check_ids(token_type_ids, "token_type_ids", self.config.type_vocab_size)
            if types.shape != ids.shape:
                raise ValueError(f"token_type_ids {types.shape} must fit token_ids {ids.shape}")
        refuse_both(lengths, attention_mask)
        if attention_mask is not None:
            lengths = lengths_of_mask(attention_mask, ids.shape)
        limits = None if lengths is None else check_lengths(lengths, ids.shape)
        sequences = Ragged.of_rows(ids.shape, limits)
        tokens = sequences.packed(ids)
        own_types = None if types is None else sequences.packed(types)
        return sequences.padded(
            self.hidden_states(tokens, own_types, sequences, num_threads), ids.shape[1]
        )

    def attention_weights(
        self,
        token_ids: ArrayLike,
        layer: int | None = None,
        head: int | None = None,
        rows: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
    ) -> Float32Array:
        """Return the attention maps of one sequence, exact, and only those asked for.

        Parameters
        ----------
        token_ids : int array (S,)
            The sequence.
        layer, head : int, optional
            Count from 0. Without one, the result has a dimension of all layers or of all heads.
        rows : int array (R,), optional
            The tokens whose rows are wanted; all by default.
        num_threads : int, optional
            Upper limit for this call.

        Returns
        -------
        float32 array (L, H, R, S), without L if layer is given and without H if head is given
            Entry [l, h, r, j]: how much head h of layer l weighs token j for token rows[r].

        Raises
        ------
        TypeError
            If the ids are not integers.
        ValueError
            If token_ids is not (S,) with S ≥ 1, or an id, the layer, the head or a row is out of
            range.
        """
        ids = np.asarray(token_ids)
        if ids.ndim != 1 or ids.size == 0:
            raise ValueError(f"token_ids must be (S,) with S of 1 or more, not {ids.shape}")
        ids = self._check_ids(ids[np.newaxis], "token_ids", self.config.vocab_size)
        check_index("layer", layer, self.config.num_layers)
        check_index("head", head, self.config.num_heads)
        chosen = np.arange(ids.size) if rows is None else np.asarray(rows)
        if chosen.ndim != 1 or not np.all((chosen >= 0) & (chosen < ids.size)):
            raise ValueError(f"rows must be (R,) of 0 … {ids.size - 1}, not {chosen.tolist()}")
        heads = slice(None) if head is None else slice(head, head + 1)
        maps = [*self._maps(ids[0], layer, heads, chosen, num_threads)]
        result = np.stack(maps) if layer is None else maps[0]
        return result if head is None else result[..., 0, :, :]

    def _maps(
        self,
        ids: Int64Array,
        layer: int | None,
        heads: slice,
        rows: Int64Array,
        num_threads: int | None,
    ) -> Iterator[Float32Array]:
        """Yield the map (H, R, S) of each layer, or of one, for ids (S,), which are checked."""
        one = Ragged.of_lengths([ids.size])
        steps = Steps(num_threads)
        work = self._embed(ids, None, one, steps)
        for number, part in enumerate(self._layers):
            part.project(work, steps)
            steps.run()
            if layer is None or layer == number:
                yield attention_weights(
                    work.query[:, heads],
                    work.key[:, heads],
                    rows=rows,
                    window=None if part.window is None else (part.window, part.window),
                    bias=None if work.bias is None else work.bias[heads],
                    layout="bshd",
                    num_threads=num_threads,
                )
            if layer == number:
                return
            part.finish(work, one, steps)

    def _hidden(self, ids: Int64Array, sequences: Ragged, num_threads: int | None) -> Float32Array:
        check_ids("token ids", ids, self.config.vocab_size, ndim=1)
        self._check_length("a text", int(sequences.lengths.max(initial=0)), "")
        return self.hidden_states(ids, None, sequences, num_threads)

    def hidden_states(
        self,
        ids: Int64Array,
        types: Int64Array | None,
        sequences: Ragged,
        num_threads: int | None,
    ) -> Float32Array:
        """Return the hidden states of the last layer (T, E) for ids (T,), which are checked."""
        steps = Steps(num_threads)
        work = self._embed(ids, types, sequences, steps)
        if ids.size:
            for layer in self._layers:
                layer.project(work, steps)
                layer.finish(work, sequences, steps)
            self._finish(work, steps)
            steps.run()
        return work.x

    def _check_ids(self, values: ArrayLike, name: str, limit: int) -> Int64Array:
        """Return ids as int64 (B, S), or raise."""
        ids = check_ids(name, values, limit)
        self._check_length(name, ids.shape[1], " a row")
        return ids

    def _check_length(self, name: str, tokens: int, each: str) -> None:
        """Raise ValueError if a sequence has more tokens than the model has positions."""
        if tokens > self.config.max_positions:
            raise ValueError(
                f"{name} has {tokens} tokens{each}; the model has positions for "
                f"{self.config.max_positions}"
            )


def check_index(name: str, value: int | None, count: int) -> None:
    """Raise ValueError if an index counts beyond what there is."""
    if value is not None and not 0 <= value < count:
        raise ValueError(f"{name} must be in 0 … {count - 1}, not {value}")
