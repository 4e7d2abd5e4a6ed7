"""A BERT-family encoder on numattn's public API; no deep-learning framework is involved.

    x = norm(word[token] + position[p] + type[t])
    for each layer: x = layer(x)                     bert_layer.py
    vector of a text = pooling(x)                    text_encoder.py

(Devlin et al., BERT, 2018.) A ragged batch is padded on the right, and lengths keep the padding out
of the attention: there is no mask, and nothing of the size S × S.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import attention_weights

from ..arrays import Float32Array, Int64Array
from ..files.checkpoint import Checkpoint
from ..files.folder import model_folder
from ..files.storage import number_dtype, storage_dtype
from ..ids import check_ids
from ..lengths import check_lengths, lengths_of_mask, refuse_both
from .bert_config import BertConfig
from .bert_layer import Layer, Workspace, read_norm
from .pooling import POOLINGS, Pooling
from .sentence_folder import SentenceFolder
from .text_encoder import TextEncoder
from .tokenizer import read_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Tensors that are no part of the encoder: indices that are counted anew, the layer over [CLS] that
# no vector here passes through, and what a folder trained for a task has on top.
IGNORED = (
    r"(.*\.)?embeddings\.(position_ids|token_type_ids)"
    r"|(.*\.)?pooler\.dense\.(weight|bias)"
    r"|(cls|lm_head|classifier|qa_outputs)\..*"
)


class Bert(TextEncoder):
    """A BERT-family encoder: BERT, RoBERTa and what shares their layers (MiniLM, BGE, E5, GTE …).

    Made by `Bert.from_folder`. Any number of threads may call one model at once.

    Attributes
    ----------
    config : BertConfig
        Sizes and choices.
    tokenizer : tokenizers.Tokenizer
        Texts → token ids. It cuts a text to `max_tokens` tokens.
    dtype : numpy.dtype
        What the weights of the layers are stored in: float32, bfloat16 or int8.
    prompt : str
        What `encode` puts before every text: the folder's default prompt, "" in most.

    Examples
    --------
    >>> from numattn.models import Bert, installed_folder
    >>> model = Bert.from_folder(installed_folder())
    >>> cat, kitten, shares = model.encode(["A cat sleeps.", "A kitten naps.", "Shares fell."])
    >>> bool(cat @ kitten > 0.5 > 0.2 > cat @ shares)
    True
    """

    def __init__(
        self,
        config: BertConfig,
        checkpoint: Checkpoint,
        tokenizer: Tokenizer,
        pooling: Pooling,
        dtype: DTypeLike | None = None,
        prompt: str = "",
    ) -> None:
        width = config.hidden_size
        self.dtype = storage_dtype(dtype)
        super().__init__(config, tokenizer, pooling, prompt)
        checkpoint.check_layers("encoder.layer", config.num_layers, "num_hidden_layers")
        self._word = checkpoint.take(
            "embeddings.word_embeddings.weight", (config.vocab_size, width)
        )
        self._position = checkpoint.take(
            "embeddings.position_embeddings.weight", (config.position_rows, width)
        )
        self._type = checkpoint.take(
            "embeddings.token_type_embeddings.weight", (config.type_vocab_size, width)
        )
        self._norm = read_norm(checkpoint, "embeddings.LayerNorm", config)
        self._layers = [
            Layer(checkpoint, f"encoder.layer.{number}", config, self.dtype)
            for number in range(config.num_layers)
        ]

    @classmethod
    def from_folder(cls, folder: str | Path, *, dtype: DTypeLike | None = None) -> Bert:
        """Load a Hugging Face folder: config.json, model.safetensors and tokenizer.json.

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
        dtype : {None, float32, bfloat16, int8}
            How the layers store their weights: float32 by default. With bfloat16 (``"bfloat16"`` or
            ``ml_dtypes.bfloat16``), projections, joined heads and feed-forward activations are
            bfloat16 arrays too; embeddings, hidden states, sums and norms stay float32. With int8
            (as :class:`numattn.Linear` has it) all of these are float32.

        Raises
        ------
        FileNotFoundError
            If the folder or a file is missing. Nothing is downloaded.
        ImportError
            If safetensors or tokenizers is not installed, or ml_dtypes for bfloat16.
        ValueError
            If a file is damaged, a tensor is missing, unused or of another shape than the
            configuration says, or the folder or `dtype` asks for something that is not supported.
            The message names it.
        """
        sentences = SentenceFolder.read(model_folder(folder))
        model_folder(sentences.model)  # which may be a folder in it
        config = BertConfig.from_file(sentences.model / "config.json")
        tokenizer = read_tokenizer(
            sentences.model, config.max_positions, sentences.max_tokens, sentences.lower_case
        )
        checkpoint = Checkpoint(
            sentences.model / "model.safetensors", "embeddings.word_embeddings.weight"
        )
        pooling = POOLINGS[sentences.pooling]
        model = cls(config, checkpoint, tokenizer, pooling, dtype, sentences.prompt)
        checkpoint.finish(IGNORED)
        return model

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
            Row b holds lengths[b] tokens and then padding, any valid ids.
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
            Rows of padding hold numbers without meaning.

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
            types = self._check_ids(token_type_ids, "token_type_ids", self.config.type_vocab_size)
            if types.shape != ids.shape:
                raise ValueError(f"token_type_ids {types.shape} must fit token_ids {ids.shape}")
        refuse_both(lengths, attention_mask)
        if attention_mask is not None:
            lengths = lengths_of_mask(attention_mask, ids.shape)
        limits = None if lengths is None else check_lengths(lengths, ids.shape)
        if ids.size == 0:
            return np.empty((*ids.shape, self.config.hidden_size), dtype=np.float32)
        work = self._embed(ids, types, limits, num_threads)
        for layer in self._layers:
            layer.project(work, num_threads)
            layer.finish(work, limits, num_threads)
        return work.x

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

        work = self._embed(ids, None, None, num_threads)
        maps = []
        for number, part in enumerate(self._layers):
            part.project(work, num_threads)
            if layer is None or layer == number:
                query, key = work.query[:, :, heads], work.key[:, :, heads]
                maps.append(
                    attention_weights(
                        query, key, rows=chosen, layout="bshd", num_threads=num_threads
                    )[0]
                )
            if layer == number:
                break
            part.finish(work, None, num_threads)
        result = np.stack(maps) if layer is None else maps[0]
        return result if head is None else result[..., 0, :, :]

    def _embed(
        self,
        ids: Int64Array,
        types: Int64Array | None,
        lengths: Int64Array | None,
        num_threads: int | None,
    ) -> Workspace:
        """Return the activations of a call, with x holding the embedded tokens."""
        batch, length = ids.shape
        work = Workspace(batch, length, self.config, number_dtype(self.dtype))
        # The ids are in range, and "clip" spares take() a buffered copy of the result.
        np.take(self._word, ids, axis=0, out=work.x, mode="clip")
        work.x += self._type[0] if types is None else self._type[types]
        rows = self._position_rows(ids, lengths)
        if rows is None:
            work.x += self._position[self.config.position_offset :][:length]
        else:
            work.x += self._position[rows]
        self._norm(work.x, num_threads, out=work.x)
        return work

    def _position_rows(self, ids: Int64Array, lengths: Int64Array | None) -> Int64Array | None:
        """Return which rows of the positions' table tokens have (B, S), if not one after the other.

        RoBERTa counts the tokens that are no padding token, wherever those stand, and a padding
        token has the row of its id.
        """
        offset, pad = self.config.position_offset, self.config.pad_token_id
        if offset == 0:
            return None
        pads = ids == pad
        if lengths is not None:
            pads &= np.arange(ids.shape[1]) < lengths[:, np.newaxis]
        if not pads.any():
            return None
        return np.where(pads, pad, np.cumsum(~pads, axis=1) + pad)

    def _check_ids(self, values: ArrayLike, name: str, limit: int) -> Int64Array:
        """Return ids as int64 (B, S), or raise."""
        ids = check_ids(name, values, limit)
        if ids.shape[1] > self.config.max_positions:
            raise ValueError(
                f"{name} has {ids.shape[1]} tokens a row; the model has positions for "
                f"{self.config.max_positions}"
            )
        return ids


def check_index(name: str, value: int | None, count: int) -> None:
    """Raise ValueError if an index counts beyond what there is."""
    if value is not None and not 0 <= value < count:
        raise ValueError(f"{name} must be in 0 … {count - 1}, not {value}")
