"""`numattn serve`: models behind the HTTP interface that OpenAI's clients speak."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numattn._dtypes import STORED

from .arguments import count_from_zero, positive
from .streams import note

if TYPE_CHECKING:
    from numattn.serve import Limits

    from .arguments import Commands

HOST, PORT = "127.0.0.1", 8000
EXTRAS = ("prometheus_client", "starlette", "uvicorn")
# Each is a limit of numattn.serve.Limits, whose default it has.
LIMITS = {
    "body_bytes": "bytes of a request's body; beyond them 413",
    "requests": "requests that are being answered or wait, of one process; beyond them 429",
    "request_tokens": "tokens of a request for embeddings; beyond them 422",
    "new_tokens": "tokens that a text may have beyond its prompt; beyond them 422",
    "batch_tokens": "tokens of embeddings computed at once",
    "rows": "texts of a model that are written at once",
    "pages": "pages of keys and values of a model, for all texts together",
    "page_size": "tokens in a page",
    "chunk": "tokens of a prompt read between two tokens of other texts",
    "prefixes": "prompts whose beginnings are kept for those that begin alike; 0 keeps none",
    "draft": "tokens of a text that are guessed by what followed the same words before, and "
    "verified by one step; 0 (the default) guesses none",
    "body_seconds": "seconds in which a body must have come; beyond them 408",
    "send_seconds": "seconds in which a client must take a piece of its answer",
    "drain_seconds": "seconds for which a service that stops goes on with what it has begun",
}


def add_parser(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="models behind an HTTP interface like OpenAI's",
        description="Serve models at /v1/embeddings, /v1/completions, /v1/chat/completions, "
        "/v1/models, /health and /metrics, until SIGTERM or Ctrl-C. Where NUMATTN_API_KEY or "
        "--api-key-file holds a key, clients must show it.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="a model's folder, whose name is the model's, or NAME=FOLDER; by default the "
        "installed all-MiniLM-L6-v2",
    )
    parser.add_argument("--host", default=HOST, help="where to listen (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=count_from_zero,
        default=PORT,
        help="0 for any that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="processes, which share the weights (default: %(default)s)",
    )
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="its first line")
    parser.add_argument(
        "--dtype",
        choices=STORED,
        help="how weights are stored (default: float32; of GGUF files, as they are quantised)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="upper limit of threads of each process (default: its share of the processors)",
    )
    parser.add_argument("--access-log", action="store_true", help="print a line for each request")
    for name, text in LIMITS.items():
        option = "--" + name.replace("_", "-")
        kind = count_from_zero if name in ("prefixes", "draft") else positive
        parser.add_argument(option, type=kind, metavar="N", help=text)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve what the arguments name."""
    from numattn.models import installed_folder
    from numattn.serve import Catalogue
    from numattn.serve.key import read_key
    from numattn.serve.sockets import address_of, listening

    limits = limits_of(arguments)
    key = read_key(arguments.api_key_file)
    if arguments.port > 65535:
        raise ValueError(f"--port must be at most 65535, not {arguments.port}")
    check_extras()
    listeners = listening(arguments.host, arguments.port, arguments.workers)
    folders = arguments.folders or [f"all-MiniLM-L6-v2={installed_folder()}"]
    limit_threads(arguments)
    catalogue = Catalogue.load(folders, limits, arguments.dtype)
    names = ", ".join(catalogue.entries)
    note("numattn serve", f"{address_of(listeners[0])} serves {names}")
    serve(arguments, catalogue, limits, key, listeners)


def limits_of(arguments: argparse.Namespace) -> Limits:
    """Return the limits that were given, with the defaults of the others."""
    from numattn.serve import Limits

    given = {name: getattr(arguments, name) for name in LIMITS}
    return Limits(**{name: value for name, value in given.items() if value is not None})


def check_extras() -> None:
    """Raise ImportError, before anything is loaded, if what serves is not installed."""
    from importlib.util import find_spec

    # Not imported yet: prometheus_client then looks whether several processes are to count.
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise ImportError(f"{missing[0]} is not installed: pip install 'numattn[serve]'")


def limit_threads(arguments: argparse.Namespace) -> None:
    """Give each process its share of the processors, or what was asked for."""
    import numattn as na

    threads = arguments.threads
    if threads is None and arguments.workers > 1:
        threads = max(na.get_num_threads() // arguments.workers, 1)
    if threads is not None:
        na.set_num_threads(threads)
        # The tokenizer's own threads; it reads this when it is first used.
        os.environ["RAYON_NUM_THREADS"] = str(threads)


def serve(
    arguments: argparse.Namespace, catalogue: Any, limits: Any, key: str | None, listeners: Any
) -> None:
    """Serve in this process, or in several."""
    from numattn.serve import create_app
    from numattn.serve.metrics import forget_process
    from numattn.serve.server import run_server
    from numattn.serve.workers import Workers

    def work(number: int, parent: int | None) -> None:
        app = create_app(catalogue, limits, key=key)
        run_server(
            app,
            listeners[number],
            drain_seconds=limits.drain_seconds,
            stopping=app.drain,
            parent=parent,
            access_log=arguments.access_log,
        )

    if arguments.workers == 1:
        work(0, None)
        return
    with shared_metrics():
        Workers(arguments.workers, work, forget_process, limits.drain_seconds).run()


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Have all processes count into files of one folder, which is gone afterwards."""
    from numattn.serve.metrics import FOLDER

    former = os.environ.get(FOLDER)
    folder = tempfile.mkdtemp(prefix="numattn-metrics-")
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if former is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = former
