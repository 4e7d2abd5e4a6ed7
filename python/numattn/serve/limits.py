"""What a service takes on at once, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from numattn._arguments import bounded_integer

MAY_BE_NONE = ("prefixes", "draft")


@dataclass(frozen=True)
class Limits:
    """Limits of one process, each a whole number of 1 or more; `prefixes` and `draft` may be 0.

    Raises
    ------
    TypeError, ValueError
        One is no whole number, or below 1 (`prefixes`, `draft`: 0).

    Examples
    --------
    >>> Limits(requests=64).requests
    64
    """

    body_bytes: int = 4 << 20
    """Of a request; beyond it the answer is 413."""
    requests: int = 512
    """That are being answered or wait; beyond it the answer is 429."""
    request_tokens: int = 1 << 16
    """Of all texts of a request for embeddings; beyond it the answer is 422."""
    new_tokens: int = 4096
    """That a text may have beyond its prompt; beyond it the answer is 422."""
    batch_tokens: int = 2048
    """Of embeddings computed at once, unless one text has more."""
    rows: int = 32
    """Texts that are written at once."""
    pages: int = 2048
    """Of keys and values, for all texts of a model together."""
    page_size: int = 16
    """Tokens in a page."""
    chunk: int = 128
    """Tokens of a prompt that are read between two tokens of the texts that are being written."""
    prefixes: int = 128
    """Prompts of which the beginnings are kept for others that begin alike; 0 keeps none."""
    draft: int = 0
    """Tokens of a text that are guessed for a step, by what followed the same words before."""
    body_seconds: int = 30
    """In which a request's body must have come; beyond it the answer is 408."""
    send_seconds: int = 60
    """In which a client must take a piece of its answer; beyond it the rest is given up."""
    drain_seconds: int = 30
    """For which a service that stops goes on with what it has begun."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = bounded_integer(field.name, getattr(self, field.name))
            least = 0 if field.name in MAY_BE_NONE else 1
            if value < least:
                raise ValueError(f"{field.name} must be {least} or more, not {value}")
