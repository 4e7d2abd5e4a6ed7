"""A service on a port of this machine's own, in a thread of the test or as a command."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import uvicorn

from numattn.models import Bert
from numattn.serve import Catalogue, Limits, create_app
from numattn.serve.catalogue import Entry
from numattn.serve.sockets import address_of, listening

# Made once: it takes longer than a request.
TLS = ssl.create_default_context()
get, post = (partial(function, verify=TLS, timeout=30) for function in (httpx.get, httpx.post))


@contextmanager
def serving(catalogue: Catalogue, limits: Limits | None = None, **options: Any) -> Iterator[str]:
    """Serve in a thread; yield the address."""
    app = create_app(catalogue, limits, **options)
    (listener,) = listening("127.0.0.1", 0, 1)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive()


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Wait for a condition, which must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def catalogue_of(**models: Any) -> Catalogue:
    """Return a catalogue of models by their names."""
    return Catalogue([Entry(name, model, context(model)) for name, model in models.items()])


def context(model: Any) -> int:
    return model.max_tokens if isinstance(model, Bert | HeldBert) else 128


class HeldBert:
    """A model that computes nothing until it may."""

    def __init__(self, model: Bert) -> None:
        self._model, self.may = model, threading.Event()
        self.config, self.max_tokens, self.tokenize = model.config, model.max_tokens, model.tokenize
        self.begun = 0
        self.batches: list[list[int]] = []

    def encode_tokens(self, lists: Any, **options: Any) -> Any:
        self.begun += 1
        assert self.may.wait(30)
        self.batches.append([len(each) for each in lists])
        return self._model.encode_tokens(lists, **options)


@contextmanager
def command_serving(*arguments: object, environment: dict[str, str] | None = None) -> Iterator[Any]:
    """Run `numattn serve` on a free port; yield the process, with its `address`."""
    process: Any = subprocess.Popen(
        [sys.executable, "-m", "numattn", "serve", "--port", "0", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        # A process started in the background inherits SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line + process.stderr.read()
        process.address = found[0]
        until(lambda: answers(process.address))
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.stderr.close()


def answers(address: str) -> bool:
    """Return whether a service answers."""
    try:
        return get(f"{address}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def metric(address: str, name: str) -> float:
    """Return the sum of a metric's numbers, whatever their labels."""
    return total(get(f"{address}/metrics").text, name)


def unused_pages(address: str) -> float:
    """Return how many pages are free, or kept and nobody else's where nothing is written."""
    text = get(f"{address}/metrics").text
    return total(text, "numattn_free_pages") + total(text, "numattn_kept_pages")


def total(text: str, name: str) -> float:
    """Return the sum of a metric's numbers in the text of all of them."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))
