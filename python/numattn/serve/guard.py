"""What stands before every endpoint: the key, room for one more request, and what is counted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ApiError
from .key import allows

if TYPE_CHECKING:
    from .service import Service

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

PROTECTED = "/v1/"
RETRY = {"retry-after": "1"}


class Guard:
    """Lets requests through to an application, or answers them itself.

    Parameters
    ----------
    app : ASGI application
    service : Service
    key : str, optional
        What clients must show for addresses under /v1/.
    paths : set of str
        Known addresses, by which requests are counted.
    """

    def __init__(self, app: App, service: Service, key: str | None, paths: frozenset[str]) -> None:
        self._app, self._service, self._key, self._paths = app, service, key, paths
        self._begun = 0

    def drain(self) -> None:
        """Take no more requests; those that have begun go on."""
        self._service.draining = True

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection's request, or the application's beginning and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = own_path(scope)
        if not path.startswith(PROTECTED):
            await self._app(scope, receive, send)
            return
        await self._counted(path if path in self._paths else "other", scope, receive, send)

    async def _counted(self, path: str, scope: Message, receive: Receive, send: Send) -> None:
        metrics, start, status = self._service.metrics, time.perf_counter(), 499

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                number = self._service.next_id().encode()
                message["headers"] = [*message.get("headers", []), (b"x-request-id", number)]
            await send(message)

        self._begun += 1
        metrics.in_progress.inc()
        try:
            error = self._refusal(scope)
            if error is None:
                await self._app(scope, receive, noted)
            else:
                await send_error(error, noted)
        finally:
            self._begun -= 1
            metrics.in_progress.dec()
            metrics.requests.labels(path, str(status)).inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _refusal(self, scope: Message) -> ApiError | None:
        """Return why a request is not let through, None if it is."""
        shown = dict(scope["headers"]).get(b"authorization")
        if not allows(self._key, shown):
            headers = {"www-authenticate": "Bearer"}
            return ApiError(401, "the key is wrong", code="invalid_api_key", headers=headers)
        if self._service.draining:
            headers = {**RETRY, "connection": "close"}
            return ApiError(503, "the service is stopping", code="stopping", headers=headers)
        if self._begun > self._service.limits.requests:
            most = self._service.limits.requests
            message = f"{most} requests are being answered; try again"
            return ApiError(429, message, code="too_many_requests", headers=RETRY)
        return None


def own_path(scope: Message) -> str:
    """Return a request's path below the one where the application is mounted, as routes see it."""
    path: str = scope["path"]
    below = path.removeprefix(scope.get("root_path", ""))
    return below if below.startswith("/") else path


async def send_error(error: ApiError, send: Send) -> None:
    """Answer with an error."""
    headers = {"content-type": "application/json", **error.headers}
    body = error.body
    headers["content-length"] = str(len(body))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
