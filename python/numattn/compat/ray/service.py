"""The service of `numattn.serve` as a deployment of Ray Serve: replicas on a cluster's machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numattn.compat.ray.processors import MISSING, threads_given
from numattn.serve import Catalogue, Limits, create_app
from numattn.serve.guard import Guard


def service(
    *folders: str | Path,
    limits: Limits | None = None,
    dtype: str | None = None,
    key: str | None = None,
    num_threads: int | None = None,
    **options: Any,
) -> Any:
    """Return an application for ``ray.serve.run``, whose addresses are those of `numattn serve`.

    Parameters
    ----------
    *folders : path or str
        The models, as FOLDER or NAME=FOLDER, on each machine at the same place.
    limits : Limits, optional
        Of each replica.
    dtype : {None, "float32", "bfloat16", "int8", "w8a8"}
        How weights are stored: float32 by default.
    key : str, optional
        What clients must show as ``Authorization: Bearer``; without it all may come.
    num_threads : int, optional
        Upper limit of threads of each computation: by default the processors that Ray has given
        the replica.
    **options
        Those of ``ray.serve.deployment``: ``num_replicas``, ``ray_actor_options``, …
        ``max_ongoing_requests`` is by default what `limits` lets in.

    Returns
    -------
    application : ray.serve.Application

    Raises
    ------
    ImportError
        Ray Serve is not installed.
    ValueError
        There is no folder.

    Notes
    -----
    Each replica is a service of its own, and batches what comes to it. Every one makes its own
    metrics, and ``/metrics`` shows those of the replica that is asked.

    Examples
    --------
    >>> app = service("models/bge", num_replicas=4, ray_actor_options={"num_cpus": 8})
    ... # doctest: +SKIP
    >>> ray.serve.run(app)    # doctest: +SKIP
    """
    try:
        from ray import serve
    except ImportError as error:
        raise ImportError(MISSING) from error
    if not folders:
        raise ValueError("there is no model to serve: give the folder of one")
    chosen = limits or Limits()
    names = [str(folder) for folder in folders]

    def build() -> Guard:
        catalogue = Catalogue.load(names, chosen, dtype)
        threads = threads_given() if num_threads is None else num_threads
        return create_app(catalogue, chosen, key=key, num_threads=threads)

    options = {"name": "numattn", "max_ongoing_requests": chosen.requests, **options}
    deployment = serve.deployment(**options)(serve.ingress(build)())
    return deployment.bind()
