"""POST /v1/chat/completions: messages → the next one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .answer import Answer, Content, Events, json_answer
from .catalogue import Entry
from .errors import invalid
from .fields import Fields, shown
from .text_request import TextOptions, new_writing, read_options
from .writing import Writing
from .written import pieces_of, usage_of, whole_texts

if TYPE_CHECKING:
    from .service import Service


@dataclass(frozen=True)
class Wanted:
    """A request that has been read."""

    entry: Entry
    writing: Writing
    options: TextOptions


async def chat_completions(service: Service, body: bytes) -> Answer | Events:
    """Return the answer to a request.

    Raises
    ------
    ApiError
        The request is malformed, or beyond a limit.
    """
    wanted = await service.in_pool(lambda: read(service, body))
    head = {
        "id": f"chatcmpl-{service.next_id()}",
        "object": "chat.completion.chunk" if wanted.options.stream else "chat.completion",
        "created": int(time.time()),
        "model": wanted.entry.name,
    }
    if wanted.options.stream:
        return Events(events(service, wanted, head))
    ((text, finish),) = await whole_texts(service.text[wanted.entry.name], [wanted.writing])
    message = {"role": "assistant", "content": text, "refusal": None}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}]
    return json_answer({**head, "choices": choices, "usage": usage_of([wanted.writing])})


def read(service: Service, body: bytes) -> Wanted:
    """Return what a request asks for, its messages as the prompt of the model's chat template."""
    fields = Fields(body)
    entry = service.catalogue.find(fields.text("model"), embeds=False)
    messages = [plain_message(each) for each in read_messages(fields)]
    options = read_options(
        fields, service.limits, "max_completion_tokens", "max_tokens", default=None
    )
    fields.only("logprobs", False)
    fields.only("tools", [])
    fields.only("tool_choice", "none")
    fields.only("response_format", {"type": "text"})
    fields.only("modalities", ["text"])
    fields.finish()
    try:
        prompt = entry.model.chat_prompt(messages)
    except (TypeError, ValueError) as error:
        raise invalid(f"messages: {error}", "messages") from None
    writing = new_writing(entry, prompt, options, service.limits, "messages")
    return Wanted(entry, writing, options)


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """Return the messages of a request, one or more."""
    messages = fields.required("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid(f"messages must be a list of one or more, not {shown(messages)}", "messages")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise invalid(f"a message must have a role, not {shown(message)}", "messages")
    return messages


def plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content, if it came in parts, is one text."""
    content = message.get("content")
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str):
            raise invalid(
                f"the content of a message must be text, not {shown(content)}", "messages"
            )
        return message
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise invalid(f"the content of a message must be text, not {shown(part)}", "messages")
        texts.append(text)
    return {**message, "content": "".join(texts)}


async def events(
    service: Service, wanted: Wanted, head: dict[str, Any]
) -> AsyncGenerator[Content, None]:
    """Yield the message piece by piece."""
    usage: dict[str, Any] = {"usage": None} if wanted.options.include_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None) -> Content:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice], **usage}

    engine = service.text[wanted.entry.name]
    async with aclosing(pieces_of(engine, [wanted.writing])) as pieces:
        yield chunk({"role": "assistant", "content": ""}, None)
        async for _, piece in pieces:
            if piece.text:
                yield chunk({"content": piece.text}, None)
            if piece.finish is not None:
                yield chunk({}, piece.finish)
    if wanted.options.include_usage:
        yield {**head, "choices": [], "usage": usage_of([wanted.writing])}
