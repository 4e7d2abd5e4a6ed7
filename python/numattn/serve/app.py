"""The service as an ASGI application: addresses → endpoints, by Starlette."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from .answer import Answer, Events, json_answer
from .catalogue import Catalogue
from .chat import chat_completions
from .completions import completions
from .embeddings import embeddings
from .errors import ApiError, failed
from .exchange import Gone, in_time, read_body, send_answer, send_events, watched
from .guard import Guard, Message, Receive, Send, send_error
from .limits import Limits
from .service import Service

if TYPE_CHECKING:
    from starlette.requests import Request

Endpoint: TypeAlias = "Callable[[Service, bytes], Awaitable[Answer | Events]]"

POSTS: dict[str, Endpoint] = {
    "/v1/embeddings": embeddings,
    "/v1/completions": completions,
    "/v1/chat/completions": chat_completions,
}
MODELS = "/v1/models"
MISSING = "the service needs starlette: pip install 'numattn[serve]'"


class Posted:
    """An endpoint that reads a body, as an ASGI application."""

    def __init__(self, service: Service, path: str, endpoint: Endpoint) -> None:
        self._service, self._path, self._endpoint = service, path, endpoint

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        limits = self._service.limits
        try:
            body = await read_body(scope, receive, limits.body_bytes, limits.body_seconds)
        except ApiError as error:
            await send_error(error, send)
            return
        except Gone:
            self._service.metrics.disconnects.labels(self._path).inc()
            return
        await watched(receive, self._answer(body, send), self._service, self._path)

    async def _answer(self, body: bytes, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await in_time(send(message), self._service.limits.send_seconds)

        try:
            answer = await self._endpoint(self._service, body)
            if isinstance(answer, Events):
                await send_events(answer, noted)
            else:
                await send_answer(answer, noted)
        except Gone:
            raise
        except ApiError as error:
            if error.status >= 500:
                logging.getLogger(__name__).error("%s", error.message, exc_info=error)
            if not begun:
                await send_error(error, send)
        except Exception as error:
            logging.getLogger(__name__).exception("a request failed")
            if not begun:
                await send_error(failed(error), send)


def create_app(
    catalogue: Catalogue,
    limits: Limits | None = None,
    *,
    key: str | None = None,
    num_threads: int | None = None,
) -> Guard:
    """Return a service as an ASGI application, for uvicorn or whatever runs such.

    Its threads start with the application's lifespan, so that a process may be forked before.

    Parameters
    ----------
    catalogue : Catalogue
        The models.
    limits : Limits, optional
    key : str, optional
        What clients must show as ``Authorization: Bearer``; without it all may come.
    num_threads : int, optional
        Upper limit of threads of each computation.

    Raises
    ------
    ImportError
        If starlette or prometheus_client is not installed.

    Examples
    --------
    >>> from numattn.models import installed_folder
    >>> limits = Limits()
    >>> catalogue = Catalogue.load([f"minilm={installed_folder()}"], limits)
    >>> app = create_app(catalogue, limits)
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError:
        raise ImportError(MISSING) from None
    service = Service(catalogue, limits or Limits(), num_threads)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.stop()

    routes = [
        *(
            Route(path, Posted(service, path, endpoint), methods=["POST"])
            for path, endpoint in POSTS.items()
        ),
        *(Route(path, plain(answer)) for path, answer in pages(service).items()),
    ]
    starlette = Starlette(
        routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refused}
    )
    starlette.state.service = service
    return Guard(starlette, service, key, frozenset((*POSTS, MODELS)))


def pages(service: Service) -> dict[str, Callable[[Request], Answer]]:
    """Return what is to be had by GET."""

    def health(request: Request) -> Answer:
        state = "stopping" if service.draining else "ok" if service.alive else "failed"
        status = 200 if state == "ok" else 503
        return json_answer({"status": state, "pid": os.getpid()}, status)

    def metrics(request: Request) -> Answer:
        body, media_type = service.metrics.exposition()
        return Answer(body, media_type=media_type)

    return {
        MODELS: lambda request: service.catalogue.list_answer(),
        MODELS + "/{name:path}": lambda request: service.catalogue.one_answer(
            request.path_params["name"]
        ),
        "/health": health,
        "/metrics": metrics,
    }


def plain(page: Callable[[Request], Answer]) -> Callable[[Request], Awaitable[Any]]:
    """Return an endpoint of Starlette's for a page."""

    async def endpoint(request: Request) -> Any:
        from starlette.responses import Response

        try:
            answer = page(request)
        except ApiError as error:
            return Response(error.body, error.status, media_type="application/json")
        return Response(answer.body, answer.status, answer.headers, answer.media_type)

    return endpoint


async def refused(request: Request, error: Any) -> Any:
    """Answer in the form of all errors where Starlette finds no address or method."""
    from starlette.responses import Response

    message = f"{request.method} {request.url.path}: {error.detail}"
    body = ApiError(error.status_code, message, code="unknown_url").body
    return Response(body, error.status_code, error.headers, "application/json")
