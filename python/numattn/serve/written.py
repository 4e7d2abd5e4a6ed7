"""The texts of a request, from the engine that writes them, whole or piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from .errors import failed
from .sequence import Finish
from .text_engine import TextEngine
from .writing import Piece, Writing


async def pieces_of(
    engine: TextEngine, writings: Sequence[Writing]
) -> AsyncGenerator[tuple[int, Piece], None]:
    """Yield pieces of texts with the number of their text, as they come.

    When the generator ends or is closed, the engine has forgotten the texts, whatever the reason.

    Raises
    ------
    ApiError
        A text could not be written.
    """
    for writing in writings:
        engine.submit(writing)
    left = set(range(len(writings)))
    waits = {number: asyncio.ensure_future(writings[number].pieces.get()) for number in left}
    try:
        while waits:
            await asyncio.wait(waits.values(), return_when=asyncio.FIRST_COMPLETED)
            for number in sorted(waits):
                if not waits[number].done():
                    continue
                piece = waits.pop(number).result()
                if piece.error is not None:
                    raise failed(piece.error) from piece.error
                if piece.finish is None:
                    get = writings[number].pieces.get()
                    waits[number] = asyncio.ensure_future(get)
                else:
                    left.discard(number)
                yield number, piece
    finally:
        for wait in waits.values():
            wait.cancel()
        for number in left:
            engine.cancel(writings[number])


async def whole_texts(
    engine: TextEngine, writings: Sequence[Writing]
) -> list[tuple[str, Finish | None]]:
    """Return each text, and how it ended."""
    parts: list[list[str]] = [[] for _ in writings]
    finishes: list[Finish | None] = [None for _ in writings]
    async with aclosing(pieces_of(engine, writings)) as pieces:
        async for number, piece in pieces:
            parts[number].append(piece.text)
            finishes[number] = piece.finish
    return [("".join(each), finish) for each, finish in zip(parts, finishes, strict=True)]


def usage_of(writings: Sequence[Writing]) -> dict[str, Any]:
    """Return how many tokens there are of prompts, some of which were not read, and new ones."""
    prompt = sum(writing.prompt_tokens for writing in writings)
    new = sum(writing.new_tokens for writing in writings)
    cached = sum(writing.reused for writing in writings)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
