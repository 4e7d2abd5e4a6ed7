"""POST /v1/completions: prompts → what follows them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .answer import Answer, Content, Events, json_answer
from .catalogue import Entry
from .errors import invalid
from .fields import Fields
from .inputs import checked_texts, texts_or_ids
from .text_request import TextOptions, new_writing, read_options
from .writing import Writing
from .written import pieces_of, usage_of, whole_texts

if TYPE_CHECKING:
    from .service import Service

NEW_TOKENS = 16  # by default, as OpenAI's own service has it


@dataclass(frozen=True)
class Wanted:
    """A request that has been read."""

    entry: Entry
    writings: list[Writing]
    options: TextOptions


async def completions(service: Service, body: bytes) -> Answer | Events:
    """Return the answer to a request.

    Raises
    ------
    ApiError
        The request is malformed, or beyond a limit.
    """
    wanted = await service.in_pool(lambda: read(service, body))
    head = {
        "id": f"cmpl-{service.next_id()}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": wanted.entry.name,
    }
    if wanted.options.stream:
        return Events(events(service, wanted, head))
    texts = await whole_texts(service.text[wanted.entry.name], wanted.writings)
    choices = [choice(number, *text) for number, text in enumerate(texts)]
    return json_answer({**head, "choices": choices, "usage": usage_of(wanted.writings)})


def read(service: Service, body: bytes) -> Wanted:
    """Return what a request asks for."""
    fields = Fields(body)
    entry = service.catalogue.find(fields.text("model"), embeds=False)
    prompts = texts_or_ids("prompt", fields.required("prompt"))
    options = read_options(fields, service.limits, "max_tokens", default=NEW_TOKENS)
    fields.only("echo", False)
    fields.only("logprobs")
    fields.only("suffix", "")
    fields.finish()
    if len(prompts) > service.limits.rows:
        raise invalid(
            f"prompt must have at most {service.limits.rows} entries, not {len(prompts)}", "prompt"
        )
    checked_texts("prompt", [each for each in prompts if isinstance(each, str)])
    lists = [entry.model.tokenize(each) if isinstance(each, str) else each for each in prompts]
    writings = [new_writing(entry, each, options, service.limits, "prompt") for each in lists]
    return Wanted(entry, writings, options)


def choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    """Return a text, or a piece of it, as an answer has it."""
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


async def events(
    service: Service, wanted: Wanted, head: dict[str, Any]
) -> AsyncGenerator[Content, None]:
    """Yield pieces of texts as they come."""
    usage: dict[str, Any] = {"usage": None} if wanted.options.include_usage else {}
    engine = service.text[wanted.entry.name]
    async with aclosing(pieces_of(engine, wanted.writings)) as pieces:
        async for number, piece in pieces:
            if piece.text or piece.finish is not None:
                yield {**head, "choices": [choice(number, piece.text, piece.finish)], **usage}
    if wanted.options.include_usage:
        yield {**head, "choices": [], "usage": usage_of(wanted.writings)}
