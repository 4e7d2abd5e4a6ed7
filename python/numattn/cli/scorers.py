"""How alike texts are to what is asked for, by whatever kind of model a folder holds.

an encoder         cosine of the two vectors
a cross-encoder    the score of the two texts together
CLIP, SigLIP       cosine of an image's vector and a text's
"""

from __future__ import annotations

import argparse
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arguments import encoder_of, load_whole, model_folder
from .cuts import Cuts
from .streams import note

if TYPE_CHECKING:
    from numattn.models import Bert, Clip, SequenceClassifier

PROGRAM = "numattn similarity"


class Scorer(ABC):
    """Gives texts that come in pieces their scores."""

    def prepare(self, texts: Sequence[str]) -> Any:
        """Return what `scores` takes for some texts; that may be made in another thread."""
        return texts

    @abstractmethod
    def scores(self, prepared: Any) -> NDArray[np.float32]:
        """Return the scores (n,)."""

    @abstractmethod
    def report(self) -> None:
        """Say on stderr which texts were cut."""


class VectorScorer(Scorer):
    """Cosines of an encoder's vectors."""

    def __init__(self, model: Bert, query: str, query_noun: str, noun: str) -> None:
        asked = Cuts(model, query_noun)
        # Texts of one noun are counted together.
        self._cuts = asked if noun == query_noun else Cuts(model, noun)
        self._all = dict.fromkeys((asked, self._cuts))
        self._model = model
        self._vector = model.encode_tokens(asked.tokenize([query]))[0]

    def prepare(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the token ids."""
        return self._cuts.tokenize(texts)

    def scores(self, prepared: list[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Return the cosines."""
        cosines: NDArray[np.float32] = self._model.encode_tokens(prepared) @ self._vector
        return cosines

    def report(self) -> None:
        """Name the texts that were cut."""
        for cuts in self._all:
            cuts.report(PROGRAM)


class WarningScorer(Scorer):
    """A scorer whose model counts in a warning, piece by piece, the texts that it has cut."""

    _cut = False

    def scores(self, prepared: Any) -> NDArray[np.float32]:
        """Return the scores, and keep in mind whether a text was cut."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            result = self._scores(prepared)
        self._cut = self._cut or bool(caught)
        return result

    @abstractmethod
    def _scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the scores (n,)."""

    def report(self) -> None:
        """Say that there were some."""
        if self._cut:
            note(PROGRAM, "some texts have more tokens than the model reads, and were cut")


class PairScorer(WarningScorer):
    """Scores of a cross-encoder, which reads both texts together."""

    def __init__(self, model: SequenceClassifier, query: str) -> None:
        self._model, self._query = model, query

    def _scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._model.score([(self._query, text) for text in texts])


class ImageScorer(WarningScorer):
    """Cosines of a CLIP's vectors of an image and of texts."""

    def __init__(self, model: Clip, image: Path) -> None:
        self._model, self._vector = model, model.encode_images([image])[0]

    def _scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        cosines: NDArray[np.float32] = self._model.encode_texts(texts) @ self._vector
        return cosines


def scorer_of(arguments: argparse.Namespace, query: str, query_noun: str, noun: str) -> Scorer:
    """Return what compares texts with a query, or with the image of --image.

    Raises
    ------
    ValueError
        If the model compares no such things.
    """
    from numattn.models import Clip, SequenceClassifier

    model, folder = load_whole(arguments), model_folder(arguments)
    if isinstance(model, Clip) != (arguments.image is not None):
        takes = "--image" if arguments.image is None else "texts alone"
        raise ValueError(f"{folder} holds a {type(model).__name__}, which compares {takes}")
    if isinstance(model, Clip):
        return ImageScorer(model, arguments.image)
    if isinstance(model, SequenceClassifier):
        if len(model.labels) != 1:
            raise ValueError(
                f"{folder} holds a classifier of {len(model.labels)} labels, which gives two "
                "texts no one score"
            )
        return PairScorer(model, query)
    return VectorScorer(encoder_of(model, folder), query, query_noun, noun)
