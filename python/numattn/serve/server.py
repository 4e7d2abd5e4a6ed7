"""One process that serves: uvicorn, until a signal says that it should stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

from .guard import App
from .sockets import BACKLOG

MISSING = "the service needs uvicorn: pip install 'numattn[serve]'"
IDLE_SECONDS = 30  # for which a connection without a request is kept


def run_server(
    app: App,
    listener: socket.socket,
    *,
    drain_seconds: int,
    stopping: Callable[[], object],
    parent: int | None = None,
    access_log: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; what has begun by then is finished, if that is soon.

    Parameters
    ----------
    app : ASGI application
    listener : socket
        Where to listen.
    drain_seconds : int
        How long to wait for what has begun.
    stopping : callable
        Called when the end begins.
    parent : int, optional
        A file descriptor that can be read at its end when the parent process is gone, which ends
        this one as a signal does.
    access_log : bool
        Print a line for each request.

    Raises
    ------
    ImportError
        If uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise ImportError(MISSING) from None
    config = uvicorn.Config(
        app,
        log_level="info" if access_log else "warning",
        access_log=access_log,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        server_header=False,
    )
    server = uvicorn.Server(config)
    handle: Any = server.handle_exit

    def end(number: int, frame: FrameType | None) -> None:
        stopping()
        handle(number, frame)

    server.handle_exit = end
    # uvicorn raises the signal again once all is done: a service that was told to stop has not
    # failed.
    signal.signal(signal.SIGTERM, ignore)

    async def serve() -> None:
        if parent is not None:
            loop = asyncio.get_running_loop()

            def orphaned() -> None:
                loop.remove_reader(parent)
                end(signal.SIGTERM, None)

            loop.add_reader(parent, orphaned)
        await server.serve(sockets=[listener])

    asyncio.run(serve())


def ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""
