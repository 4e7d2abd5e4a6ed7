"""Models of `numattn.models` in Ray: texts of a data set become vectors, and a service.

    >>> from numattn.compat.ray import Embedder, service
    >>> actors = ray.data.ActorPoolStrategy(size=2)    # doctest: +SKIP
    >>> texts.map_batches(Embedder, fn_constructor_args=("models/bge",), compute=actors)
    ... # doctest: +SKIP
    >>> ray.serve.run(service("models/bge"))    # doctest: +SKIP

Each actor loads the folder by itself, so that it must be at the same place on every machine, and
uses as many threads as Ray has given it processors.
"""

from __future__ import annotations

from numattn.compat.ray.embedder import Embedder
from numattn.compat.ray.service import service

__all__ = ["Embedder", "service"]
