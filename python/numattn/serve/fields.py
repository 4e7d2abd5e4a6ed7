"""The fields of a request's JSON object, each asked for by its name and kind.

A field that nobody asked for is refused: what a client sends is carried out, or it is told.
"""

from __future__ import annotations

import json
import math
from typing import Any

from .errors import invalid

# Fields of OpenAI's interface that do not touch what is answered.
WITHOUT_EFFECT = {
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}


class Fields:
    """A request's JSON object."""

    def __init__(self, body: bytes) -> None:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise invalid(f"the body is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise invalid(f"the body must be a JSON object, not {shown(content)}")
        self._values: dict[str, Any] = content
        self._asked = set(WITHOUT_EFFECT)

    def get(self, name: str) -> Any:
        """Return a field as it is; None if it is null or missing."""
        self._asked.add(name)
        return self._values.get(name)

    def required(self, name: str) -> Any:
        """Return a field that must be there."""
        value = self.get(name)
        if value is None:
            raise invalid(f"{name} is missing", name)
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string."""
        value = self.required(name) if default is None else self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise invalid(f"{name} must be a string, not {shown(value)}", name)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise invalid(f"{name} must be true or false, not {shown(value)}", name)
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number of a range, None if there is none."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid(
                f"{name} must be a whole number from {least} to {most}, not {shown(value)}", name
            )
        return value

    def number(self, name: str, least: float, most: float, default: float) -> float:
        """Return a number of a range."""
        value = self.get(name)
        if value is None:
            return default
        real = not isinstance(value, bool) and isinstance(value, (int, float))
        if not real or not math.isfinite(value) or not least <= value <= most:
            raise invalid(
                f"{name} must be a number from {least:g} to {most:g}, not {shown(value)}", name
            )
        return float(value)

    def one_of(self, name: str, values: tuple[str, ...], default: str) -> str:
        """Return one of some words."""
        value = self.text(name, default)
        if value not in values:
            raise invalid(f"{name} must be one of {', '.join(values)}, not {shown(value)}", name)
        return value

    def only(self, name: str, *values: Any) -> None:
        """Refuse all values of a field but those; null, and none, are always among them."""
        value = self.get(name)
        allowed = any(value == each and type(value) is type(each) for each in values)
        if value is not None and not allowed:
            raise invalid(f"{name} {shown(value)} is not supported", name, "unsupported_value")

    def finish(self) -> None:
        """Raise for a field that nobody asked for, unless it is null."""
        for name, value in self._values.items():
            if name not in self._asked and value is not None:
                raise invalid(f"the field {shown(name)} is not supported", name, "unknown_field")


def shown(value: Any) -> str:
    """Return a value as JSON, short enough for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
