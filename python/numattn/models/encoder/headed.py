"""An encoder with a head for a task: texts and pairs of texts → logits."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..arrays import Float32Array, Int64Array
from ..files.folder import model_folder
from ..files.settings import Settings
from ..texts import check_text, in_order
from .batches import batches, longest_first
from .encoder import Encoder
from .families import encoder_of
from .head import Head, Task, read_head, read_labels
from .head_folder import HeadFolder
from .tokenized import PIECE_TEXTS, encoded

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

H = TypeVar("H", bound="Headed")


class Tokens(NamedTuple):
    """Texts as the tokenizer leaves them."""

    ids: list[Int64Array]
    types: list[Int64Array]
    cut: int
    """How many texts were cut."""

    @classmethod
    def of(cls, encodings: Sequence[Encoding]) -> Tokens:
        """Return what counts of the library's own results."""
        ids = [np.array(each.ids, dtype=np.int64) for each in encodings]
        types = [np.array(each.type_ids, dtype=np.int64) for each in encodings]
        return cls(ids, types, sum(bool(each.overflowing) for each in encodings))


class Parts(NamedTuple):
    """The states of a batch's sequences."""

    places: NDArray[np.intp]
    """Which of the texts these are."""
    logits: Float32Array
    """(N, L), or (T, L) of their tokens, one sequence after the other."""
    starts: Int64Array
    """(N + 1,): where the tokens of each begin."""


class Headed(ABC):
    """An encoder with a head.

    Attributes
    ----------
    encoder : Encoder
        What the head stands on.
    labels : tuple of str
        Of the logits.
    """

    TASK: ClassVar[Task]

    def __init__(
        self, encoder: Encoder, head: Head, labels: tuple[str, ...], folder: HeadFolder
    ) -> None:
        self.encoder, self.labels = encoder, labels
        self._head, self._folder = head, folder

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts → token ids."""
        return self.encoder.tokenizer

    @classmethod
    def from_folder(cls: type[H], folder: str | Path, *, dtype: DTypeLike | None = None) -> H:
        """Load a folder of a model with such a head, as `numattn.models.load` does.

        Parameters
        ----------
        folder : path
            The folder.
        dtype : {None, float32, bfloat16, int8, "w8a8"}
            How the encoder's layers store their weights; the head's are float32.

        Raises
        ------
        FileNotFoundError, ImportError, ValueError
            As `Bert.from_folder`; also if the head is missing, or the model_type is one of no
            encoder.
        """
        place = HeadFolder.read(model_folder(folder))
        settings = Settings.from_file(place.model / "config.json")
        encoder = encoder_of(place.model / "config.json")
        labels = read_labels(settings)
        if cls.TASK == "span" and len(labels) != 2:
            raise ValueError(
                f"{settings.path}: {len(labels)} labels; where an answer begins and ends has 2"
            )
        model, checkpoint = encoder.opened_at(
            place.model, place.max_tokens, place.lower_case, dtype=dtype
        )
        head = read_head(
            *(checkpoint, settings, model.config.family, model.config.hidden_size),
            cls.TASK,
            len(labels),
        )
        checkpoint.finish(encoder.IGNORED)
        return cls(model, head, labels, place)

    def _tokens(self, texts: Iterable[Any], name: str) -> Tokens:
        """Return what the tokenizer makes of texts, or of pairs of them, cut where it cuts."""
        checked = [check_one(name, each) for each in in_order(name, texts, "strings or pairs")]
        tokens = Tokens([], [], 0)
        for begin in range(0, len(checked), PIECE_TEXTS):
            more = Tokens.of(encoded(self.tokenizer, checked[begin : begin + PIECE_TEXTS]))
            tokens.ids.extend(more.ids)
            tokens.types.extend(more.types)
            tokens = tokens._replace(cut=tokens.cut + more.cut)
        if tokens.cut:
            warnings.warn(
                f"{tokens.cut} of {len(checked)} texts have more than {self.encoder.max_tokens} "
                "tokens and were cut",
                stacklevel=3,
            )
        return tokens

    def _parts(self, tokens: Tokens, batch_tokens: int, num_threads: int | None) -> Iterator[Parts]:
        """Yield the logits of tokenised texts, batch by batch."""
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be 1 or more, not {batch_tokens}")
        if any(each.size == 0 for each in tokens.ids):
            raise ValueError("a text has no token, so that there is nothing to classify")
        typed = self._folder.types and self.encoder.config.type_vocab_size > 1
        begin = 0
        for batch in batches(tokens.ids, batch_tokens):
            order, ids, sequences = longest_first(batch)
            types = None
            if typed:
                types = np.concatenate([tokens.types[begin + index] for index in order.tolist()])
            hidden = self.encoder.hidden_states(ids, types, sequences, num_threads)
            logits = self._head(hidden, sequences, num_threads)
            yield Parts(begin + order, logits, sequences.starts)
            begin += len(batch)


def check_one(name: str, given: Any) -> str | tuple[str, str]:
    """Return a text, or a pair of texts; raise TypeError for anything else."""
    if isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise TypeError(f"{name} must be texts, or pairs of texts, not {len(given)} together")
        first, second = map(check_text, given)
        return first, second
    return check_text(given)
