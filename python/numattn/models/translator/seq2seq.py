"""A Marian encoder–decoder on numattn's public API: text of one language to text of another.

    source = embedding[word]·sqrt(E) + position      for each encoder layer: source = layer(source)
    for each word of the translation:
        x = embedding[the word before]·sqrt(E) + position      (0 before the first word)
        for each decoder layer: x = layer(x, source)
        the word is the one with the greatest x·embedding + bias

Keys and values that the decoder reads of the source are computed once, before its first step.
(Vaswani et al., 2017; Bogoychev et al., 2020, for models of this size.)

Such a model has learned from single sentences: of several at once, or of a very long one, it leaves
some out. So a text is translated sentence by sentence.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from numattn import ProjectedContext
from numattn._dtypes import storage_name

from ..arrays import Float32Array, Int64Array
from ..files.folder import model_folder
from ..files.tokens import load_tokenizer
from ..ids import check_ids
from ..lengths import check_lengths
from ..ragged import Ragged
from ..texts import each_text
from ..token_lists import TokenLists, padded, token_lists
from .chooser import Chooser
from .marian_file import MarianFile
from .sentences import Sentences, language_of
from .seq2seq_config import Seq2SeqConfig
from .seq2seq_layer import DecoderLayer, EncoderLayer
from .shortlist import Shortlist

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END = 0  # </s> in Marian's vocabularies: it ends every sentence
# A translation has at most this many times the words of its source, its end included.
MOST_WORDS_PER_WORD = 2.5
# A sentence of more words than these is likely to lose some: from English to Portuguese, those of
# up to 95 words came back whole, and those of 102, 112 and more did not.
MOST_WORDS = 100


@dataclass
class DecoderState:
    """What goes from one step of the decoder to the next, for B sentences."""

    sources: list[ProjectedContext]
    """Keys and values of the source for each layer: computed once, read at each step."""
    lengths: Int64Array
    """(B,): the words of each source."""
    cells: list[Float32Array]
    """(B, 1, E) of each layer's recurrent unit."""
    position: int


class Seq2Seq:
    """An encoder–decoder of Marian's tiny family, made by `Seq2Seq.from_folder`.

    Any number of threads may call one model at once.

    Attributes
    ----------
    config : Seq2SeqConfig
        Sizes.
    tokenizer : tokenizers.Tokenizer
        Text → words, which are pieces of written words.
    shortlist : Shortlist or None
        The words that a translation may consist of; without one, all of the vocabulary.
    language : str
        What is translated from, as an ISO 639 code: by its rules a text is split into sentences.

    Examples
    --------
    >>> from numattn.models import Seq2Seq, installed_translator
    >>> model = Seq2Seq.from_folder(installed_translator())  # doctest: +SKIP
    >>> model.translate(["How are you today?"])  # doctest: +SKIP
    ['Como você está hoje?']
    """

    def __init__(
        self,
        config: Seq2SeqConfig,
        file: MarianFile,
        tokenizer: Tokenizer,
        shortlist: Shortlist | None = None,
        dtype: DTypeLike | None = None,
        language: str = "en",
    ) -> None:
        stored = storage_name(dtype)
        self.config, self.tokenizer, self.shortlist = config, tokenizer, shortlist
        self.language = language
        file.check_layers("encoder_l", config.encoder_layers, "enc-depth")
        file.check_layers("decoder_l", config.decoder_layers, "dec-depth")
        self._embedding = file.take("Wemb", (config.vocab_size, config.hidden_size))
        self._bias = file.take("decoder_ff_logit_out_b", (1, config.vocab_size))[0]
        self._encoder = [
            EncoderLayer(file, number + 1, config, stored)
            for number in range(config.encoder_layers)
        ]
        self._decoder = [
            DecoderLayer(file, number + 1, config, stored)
            for number in range(config.decoder_layers)
        ]

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, dtype: DTypeLike | None = None, language: str | None = None
    ) -> Seq2Seq:
        """Load a folder of a model (*.intgemm.alphas.bin), its tokenizer.json and its lex.*.bin.

        Weights in 8 bits become float32, or bfloat16 or int8 anew if `dtype` says so. Without a
        lex.*.bin, every word of the vocabulary is possible in a translation. `language` is that of
        the attribute; by default the first of two in the model's name
        (model.enpt.intgemm.alphas.bin), or English.

        Raises
        ------
        FileNotFoundError
            If the folder, the model or the tokenizer is missing.
        ImportError
            If tokenizers is not installed.
        ValueError
            If a file is damaged or cut short, a tensor is missing, unused or of another shape, or
            the model asks for something that is not supported. The message names it.
        """
        folder = model_folder(folder)
        path = only_file(folder, "*.intgemm.alphas.bin")
        if path is None:
            raise FileNotFoundError(f"no *.intgemm.alphas.bin in {folder}")
        file = MarianFile(path)
        config = Seq2SeqConfig.from_text(file.text("special:model.yml"), str(path))
        tokenizer = read_marian_tokenizer(folder, config.vocab_size)
        lists = only_file(folder, "lex.*.bin")
        shortlist = None if lists is None else Shortlist(lists, config.vocab_size)
        model = cls(config, file, tokenizer, shortlist, dtype, language or language_of(path.name))
        file.finish()
        return model

    def encode(
        self, token_ids: ArrayLike, lengths: ArrayLike, *, num_threads: int | None = None
    ) -> DecoderState:
        """Return where the decoder begins for sentences (B, S), of lengths[b] tokens each.

        Raises
        ------
        TypeError
            If ids or lengths are not integers.
        ValueError
            If shapes do not fit, or an id or a length is out of range.
        """
        ids = check_ids("token_ids", token_ids, self.config.vocab_size)
        if ids.shape[1] == 0:
            raise ValueError(f"token_ids must be (B, S) with S of 1 or more, not {ids.shape}")
        sentences = Ragged.of_rows(ids.shape, check_lengths(lengths, ids.shape))
        places = marian_positions(0, ids.shape[1], self.config.hidden_size)
        x = self._embed(self._embedding[sentences.packed(ids)], places[sentences.positions()])
        for layer in self._encoder:
            x = layer(x, sentences, num_threads)
        encoded = sentences.padded(x, ids.shape[1])
        return DecoderState(
            [layer.cross.source(encoded, num_threads) for layer in self._decoder],
            sentences.lengths,
            [np.zeros((ids.shape[0], 1, x.shape[1]), np.float32) for _ in self._decoder],
            0,
        )

    def step(
        self, previous: Int64Array | None, state: DecoderState, *, num_threads: int | None = None
    ) -> Float32Array:
        """Return the decoder's output (B, E) after the words (B,), None before the first one.

        The state goes one step on.

        Raises
        ------
        TypeError
            If words are not integers; the state is as it was, as after a ValueError.
        ValueError
            If they are not (B,), or one is out of range.
        """
        batch = state.cells[0].shape[0]
        x = np.zeros((batch, 1, self.config.hidden_size), np.float32)
        if previous is not None:
            words = np.asarray(previous)
            if words.shape != (batch,):
                raise ValueError(f"previous must be ({batch},), not {words.shape}")
            words = check_ids("previous", words, self.config.vocab_size, ndim=1)
            x[:, 0] = self._embedding[words]
        x = self._embed(x, marian_positions(state.position, 1, x.shape[2]))
        state.position += 1
        for layer, cell, source in zip(self._decoder, state.cells, state.sources, strict=True):
            x = layer(x, cell, source, state.lengths, num_threads)
        return x[:, 0]

    def translate_tokens(
        self, sentences: TokenLists, *, num_threads: int | None = None
    ) -> list[list[int]]:
        """Return the likeliest word after word for each sentence; both end with `</s>`, 0.

        A translation that has grown to 2.5 times the length of its source ends without it. That of
        nothing is nothing. What stands beside a sentence does not change its words.

        Parameters
        ----------
        sentences : iterable of iterables of int
            The words of each sentence.
        num_threads : int, optional
            Upper limit for this call.

        Raises
        ------
        TypeError
            If sentences are something else, or words are not integers.
        ValueError
            If a word is out of range.
        """
        given = token_lists("sentences", sentences, self.config.vocab_size)
        texts: list[list[int]] = [[] for _ in given]
        rows = [row for row, sentence in enumerate(given) if sentence.size]
        if not rows:
            return texts
        ids, lengths = padded([given[row] for row in rows], END)
        state = self.encode(ids, lengths, num_threads=num_threads)
        choosers = self._choosers([given[row] for row in rows])
        limits = np.ceil(MOST_WORDS_PER_WORD * lengths)
        active = np.ones(lengths.size, dtype=bool)
        previous: Int64Array | None = None
        while active.any():
            hidden = self.step(previous, state, num_threads=num_threads)
            if len(choosers) == 1:
                previous = choosers[0](hidden, num_threads)
            else:
                previous = np.full(lengths.size, END)
                for index in np.flatnonzero(active).tolist():
                    own = hidden[index : index + 1]
                    previous[index] = choosers[index](own, num_threads)[0]
            for index in np.flatnonzero(active).tolist():
                text = texts[rows[index]]
                text.append(int(previous[index]))
                active[index] = text[-1] != END and len(text) < limits[index]
        return texts

    def translate(self, texts: Iterable[str], *, num_threads: int | None = None) -> list[str]:
        """Return the translation of each text, of any number of sentences and lines.

        A text is split into sentences, at the ends of lines and by the rules of its `language`
        (with the library sentencex), and each of them is translated by itself. The white space
        between them, line ends included, and around them is kept as it is.

        Parameters
        ----------
        texts : iterable of str
            The texts; a generator, too, which is gone through once before the first is translated.
        num_threads : int, optional
            Upper limit for this call.

        Warns
        -----
        UserWarning
            If a translation may lack something: its sentence has more than 100 words (pieces of
            the tokenizer's), or it has grown to its limit and was cut there.

        Raises
        ------
        ImportError
            If sentencex is not installed.
        TypeError
            If texts is a string or has no order, or holds something else than strings.
        ValueError
            If a text holds a lone surrogate.
        """
        results = []
        for text in list(each_text(texts)):
            split = Sentences.of(text, self.language)
            translations = []
            for sentence in split.sentences:
                translation, lack = self._translated(sentence, num_threads)
                translations.append(translation)
                if lack is not None:
                    start = sentence if len(sentence) <= 40 else sentence[:39] + "…"
                    warnings.warn(f"{lack}: parts of {start!r} may be missing", stacklevel=2)
            results.append(split.replaced(translations))
        return results

    def _translated(self, sentence: str, num_threads: int | None) -> tuple[str, str | None]:
        """Return the translation of a sentence, and why it may lack something, or None."""
        ids = [*self.tokenizer.encode(sentence).ids, END]
        words = self.translate_tokens([ids], num_threads=num_threads)[0]
        lack = None
        if len(ids) > MOST_WORDS:
            lack = f"a sentence has {len(ids)} words, and the model knows those of {MOST_WORDS}"
        elif words[-1] != END:
            lack = f"a translation was cut after {len(words)} words without an end"
        return str(self.tokenizer.decode([word for word in words if word != END])), lack

    def _choosers(self, sentences: list[Int64Array]) -> list[Chooser]:
        """Return what chooses words: one for all sentences, or one for each by its shortlist."""
        if self.shortlist is None:
            return [Chooser(self._embedding, self._bias, np.arange(self.config.vocab_size))]
        return [
            Chooser(self._embedding, self._bias, self.shortlist.words_for(sentence))
            for sentence in sentences
        ]

    def _embed(self, x: Float32Array, positions: Float32Array) -> Float32Array:
        """Return word vectors (..., E) as the layers take them, with those of their positions."""
        x = x * np.float32(np.sqrt(self.config.hidden_size))
        x += positions
        return x


def marian_positions(start: int, count: int, width: int) -> Float32Array:
    """Return sines in the first half of the columns and cosines in the second, (count, width).

    p[t, i] = sin(t / 10000^(i / (width/2 − 1))), p[t, width/2 + i] = cos of the same.
    """
    half = width // 2
    angles = np.arange(start, start + count)[:, np.newaxis] * np.exp(
        -np.log(10000.0) * np.arange(half) / max(half - 1, 1)
    )
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def only_file(folder: Path, pattern: str) -> Path | None:
    """Return the file of a folder that fits a pattern, or None; raise ValueError for several."""
    files = sorted(folder.glob(pattern))
    if len(files) > 1:
        raise ValueError(f"{folder} has several files {pattern}")
    return files[0] if files else None


def read_marian_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Return the tokenizer of a folder, which must know as many words as the model."""
    tokenizer = load_tokenizer(folder)
    words = tokenizer.get_vocab_size()
    if words > vocab_size:
        path = folder / "tokenizer.json"
        raise ValueError(f"{path} has {words} words, and the model {vocab_size}")
    return tokenizer
