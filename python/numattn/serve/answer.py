"""What an endpoint gives back: a whole answer, or events one by one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Content: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Answer:
    """A whole body."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Events:
    """Server-sent events: JSON objects as they come, and ``[DONE]`` at the end."""

    objects: AsyncGenerator[Content, None]


def json_answer(content: Any, status: int = 200) -> Answer:
    """Return content as JSON."""
    return Answer(encoded(content), status)


def encoded(content: Any) -> bytes:
    """Return content as JSON in UTF-8, without spaces."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def event(content: Any) -> bytes:
    """Return one server-sent event."""
    return b"data: " + encoded(content) + b"\n\n"


DONE = b"data: [DONE]\n\n"
