"""The two ends of a decoder: the table of its tokens' embeddings, and the projection to logits."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from numattn import Linear

from ..files.storage import number_dtype
from ..files.tensors import Tensors

HEAD = "lm_head.weight"


def read_embedding(
    checkpoint: Tensors,
    name: str,
    shape: tuple[int, int],
    tied: bool,
    storage: str,
    head: str = HEAD,
) -> tuple[NDArray[Any], Linear]:
    """Return the table (V, E), and the projection to logits, both stored as `storage` says.

    The table is float32 beside integers. In a tied model the projection has the numbers of the
    table. A file that has one of its own, as after training the projection alone, is believed more
    than the configuration, as transformers does.
    """
    read = number_dtype(storage)
    table = checkpoint.take(name, shape, dtype=read)
    shared = tied and not checkpoint.has(head, from_root=True)
    kept = checkpoint.take_integers(name if shared else head, shape)
    if kept is not None:
        return table, Linear.from_integers(*kept)
    own = table if shared else checkpoint.take(head, shape, from_root=True, dtype=read)
    return table, Linear(own, dtype=storage)
