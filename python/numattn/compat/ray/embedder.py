"""A class for `map_batches` of Ray Data: a column of texts → a column of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numattn.compat.ray.processors import threads_given


class Embedder:
    """What makes vectors of batches of texts, as an actor of Ray's that loads its model once.

    Parameters
    ----------
    folder : path
        Of an encoder, for :func:`numattn.models.load`; the same on each machine.
    column : str
        The batch's column that has the texts.
    output : str
        The column that is added, of float32 vectors (n, E).
    dtype : {None, float32, bfloat16, int8, "w8a8"}
        How weights are stored: float32 by default.
    num_threads : int, optional
        Upper limit of threads: by default the processors that Ray has given the actor
        (``num_cpus=`` of `map_batches`), 1 for a part of one.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        As :func:`numattn.models.load`; ValueError too if the model makes no vectors, or both
        columns have one name.

    Examples
    --------
    >>> import ray                                                   # doctest: +SKIP
    >>> texts = ray.data.from_items([{"text": "A cat sleeps."}])     # doctest: +SKIP
    >>> vectors = texts.map_batches(                                 # doctest: +SKIP
    ...     Embedder,
    ...     fn_constructor_args=("models/bge",),
    ...     compute=ray.data.ActorPoolStrategy(size=2),
    ...     num_cpus=4,
    ... )
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        column: str = "text",
        output: str = "embedding",
        dtype: DTypeLike | None = None,
        num_threads: int | None = None,
    ) -> None:
        from numattn.models import load

        if column == output:
            raise ValueError(f"output must be another column than column, not {output!r}")
        self.num_threads = threads_given() if num_threads is None else num_threads
        self.column, self.output = column, output
        self._model = load(folder, dtype=dtype)
        if not hasattr(self._model, "encode"):
            raise ValueError(f"{folder}: a {type(self._model).__name__} makes no vectors of texts")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch, a dictionary of columns, with the vectors of its texts.

        Raises
        ------
        KeyError
            There is no column of the texts.
        TypeError
            An entry of it is no text.
        """
        if self.column not in batch:
            raise KeyError(f"the batch has no column {self.column!r}; it has {[*batch]}")
        texts = [*batch[self.column]]
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(
                    f"row {number} of {self.column!r} must be a text, not {type(text).__name__}"
                )
        vectors = self._model.encode([str(text) for text in texts], num_threads=self.num_threads)
        return {**batch, self.output: np.asarray(vectors)}
