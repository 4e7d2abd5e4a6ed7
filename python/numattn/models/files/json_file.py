"""JSON files, read whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .folder import regular_file


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, or no regular file.
    """
    data = regular_file(path).read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:  # so are JSONDecodeError and UnicodeDecodeError
        raise ValueError(f"{path} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is not JSON of a model: it is nested too deeply") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, or not an object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, not an object")
    return content
