"""One request and its answer, over ASGI: the body within its limit, and a client that leaves.

What computes an answer is cancelled when its client is gone, and so frees what it had.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from .answer import DONE, Answer, Content, Events, event
from .errors import ApiError, failed
from .guard import Message, Receive, Send

if TYPE_CHECKING:
    from .service import Service

Result = TypeVar("Result")

# A client that writes all of a body before it reads should see why it was refused, not a reset
# connection: so many times the limit are read and dropped.
DROPPED = 4


class Gone(Exception):
    """The client has left."""


async def read_body(scope: Message, receive: Receive, limit: int, seconds: float) -> bytes:
    """Return the body of a request.

    Raises
    ------
    ApiError
        It has more bytes than the limit, or did not come in time.
    Gone
        The client has left.
    """
    try:
        return await asyncio.wait_for(read_parts(scope, receive, limit), seconds)
    except (TimeoutError, asyncio.TimeoutError):  # noqa: UP041
        headers = {"connection": "close"}
        raise ApiError(408, f"no body came in {seconds:g} s", headers=headers) from None


async def read_parts(scope: Message, receive: Receive, limit: int) -> bytes:
    """Return the parts of a body together."""
    declared = dict(scope["headers"]).get(b"content-length", b"0")
    size = int(declared) if declared.isdigit() and len(declared) < 20 else 0
    parts: list[bytes] = []
    held, more = 0, size <= DROPPED * limit
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        held += len(part)
        if max(held, size) <= limit:
            parts.append(part)
        more = message.get("more_body", False) and held <= DROPPED * limit
    if max(held, size) > limit:
        words = f"the body has more than {limit} bytes"
        raise ApiError(413, words, code="body_too_large", headers={"connection": "close"})
    return b"".join(parts)


async def left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what work returns; raise Gone, with the work cancelled, if the client leaves first."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(left(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        # What is cancelled has ended when this returns.
        await asyncio.gather(task, gone, return_exceptions=True)


async def in_time(sending: Awaitable[None], seconds: float) -> None:
    """Send something; raise Gone if the client does not take it."""
    try:
        await asyncio.wait_for(sending, seconds)
    except (TimeoutError, asyncio.TimeoutError):  # noqa: UP041
        raise Gone from None


async def send_answer(answer: Answer, send: Send) -> None:
    """Send a whole answer."""
    headers = {
        "content-type": answer.media_type,
        "content-length": str(len(answer.body)),
        **answer.headers,
    }
    await start(send, answer.status, headers)
    await send({"type": "http.response.body", "body": answer.body})


async def start(send: Send, status: int, headers: dict[str, str]) -> None:
    """Send an answer's head."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def send_events(events: Events, send: Send) -> None:
    """Send events as they come, the head with the first: an error before it has its own status."""
    try:
        first: Content | None = await anext(events.objects, None)
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        await start(send, 200, headers)
        if first is not None:
            await send(part(event(first)))
            try:
                async for each in events.objects:
                    await send(part(event(each)))
            except Gone:
                raise
            except Exception as error:
                # The status has been sent: what went wrong is the last event.
                logging.getLogger(__name__).error("a stream failed", exc_info=error)
                told = error if isinstance(error, ApiError) else failed(error)
                await send(part(event(told.content)))
        await send({"type": "http.response.body", "body": DONE})
    finally:
        await events.objects.aclose()


def part(body: bytes) -> Message:
    """Return a part of a body, which more will follow."""
    return {"type": "http.response.body", "body": body, "more_body": True}


async def watched(receive: Receive, work: Awaitable[None], service: Service, path: str) -> None:
    """Do what answers a request, for as long as its client stays."""

    async def run() -> None:
        await work

    try:
        await unless_left(receive, run())
    except Gone:
        service.metrics.disconnects.labels(path).inc()
