"""POST /v1/embeddings: texts or token ids → vectors of length 1."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .answer import Answer, json_answer
from .catalogue import Entry
from .embedding_queue import Job
from .errors import beyond, failed, invalid, too_long
from .fields import Fields
from .inputs import checked_ids, checked_texts, texts_or_ids

if TYPE_CHECKING:
    from .service import Service


@dataclass(frozen=True)
class Wanted:
    """A request that has been read."""

    entry: Entry
    texts: Sequence[NDArray[np.integer[Any]]]
    as_base64: bool

    @property
    def tokens(self) -> int:
        """Return how many tokens all texts have."""
        return sum(int(ids.size) for ids in self.texts)


async def embeddings(service: Service, body: bytes) -> Answer:
    """Return the answer to a request, computed with others that come at the time.

    Raises
    ------
    ApiError
        The request is malformed, or beyond a limit.
    """
    wanted = await service.in_pool(lambda: read(service, body))
    vectors = await computed(service, wanted)
    return await service.in_pool(lambda: answer(wanted, vectors))


def read(service: Service, body: bytes) -> Wanted:
    """Return what a request asks for, its texts as token ids."""
    fields = Fields(body)
    entry = service.catalogue.find(fields.text("model"), embeds=True)
    given = texts_or_ids("input", fields.required("input"))
    form = fields.one_of("encoding_format", ("float", "base64"), "float")
    fields.only("dimensions", entry.model.config.hidden_size)
    truncates = fields.flag("truncate")
    fields.finish()
    wanted = Wanted(entry, ids_of(entry, given, truncates), form == "base64")
    if wanted.tokens > service.limits.request_tokens:
        raise beyond(
            f"input has {wanted.tokens} tokens; a request may have {service.limits.request_tokens}",
            "input",
        )
    return wanted


def ids_of(
    entry: Entry, given: list[str] | list[list[int]], truncates: bool
) -> list[NDArray[np.integer[Any]]]:
    """Return the token ids of texts; with `truncates`, of a long one those that count."""
    model = entry.model
    texts = [each for each in given if isinstance(each, str)]
    if texts:
        checked_texts("input", texts)
        tokens = model.tokenize(texts)
        if tokens.truncated.any() and not truncates:
            number = int(tokens.truncated.argmax())
            raise too_long(entry.context, f"text {number} of input has more", "input")
        ids = [*tokens.ids]
    else:
        ids = [
            checked_ids("input", each, model.config.vocab_size)
            for each in given
            if isinstance(each, list)
        ]
        longest = max(each.size for each in ids)
        if longest > entry.context and not truncates:
            raise too_long(entry.context, f"input has a list of {longest}", "input")
        ids = [each[: entry.context] for each in ids]
    if not all(each.size for each in ids):
        raise invalid("input has a text of no token", "input")
    return ids


async def computed(service: Service, wanted: Wanted) -> NDArray[np.float32]:
    """Return the vectors of a request (n, E); whoever stops waiting has no more of it computed."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        service.soon(lambda: settle(future, error))

    job = Job(wanted.texts, done)
    service.embedding[wanted.entry.name].submit(job)
    try:
        await future
    except asyncio.CancelledError:
        job.cancelled = True
        raise
    except Exception as error:
        raise failed(error) from error
    return np.array(job.vectors, dtype=np.float32)


def settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    """Let whoever waits for a future go on."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def answer(wanted: Wanted, vectors: NDArray[np.float32]) -> Answer:
    """Return vectors in the form that was asked for."""
    embeddings: list[Any]
    if wanted.as_base64:
        little = vectors.astype("<f4", copy=False)
        embeddings = [base64.b64encode(row.tobytes()).decode("ascii") for row in little]
    else:
        embeddings = vectors.tolist()
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(embeddings)
    ]
    usage = {"prompt_tokens": wanted.tokens, "total_tokens": wanted.tokens}
    return json_answer({"object": "list", "data": data, "model": wanted.entry.name, "usage": usage})
