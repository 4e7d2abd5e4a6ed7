"""The key that clients must show, if there is one."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

VARIABLE = "NUMATTN_API_KEY"


def read_key(file: Path | None) -> str | None:
    """Return the first line of a file, or else what the environment says; None if neither does.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The key is empty, or not of visible ASCII characters.
    """
    if file is not None:
        lines = file.read_bytes().decode("utf-8", "replace").splitlines()
        key, place = (lines[0].strip() if lines else ""), str(file)
    else:
        found = os.environ.get(VARIABLE)
        if found is None:
            return None
        key, place = found, VARIABLE
    if not key or not all("!" <= letter <= "~" for letter in key):
        raise ValueError(f"{place} must hold a key of visible ASCII characters")
    return key


def allows(key: str | None, authorization: bytes | None) -> bool:
    """Return whether an Authorization header shows the key, in a time that tells nothing of it."""
    if key is None:
        return True
    scheme, _, shown = (authorization or b"").partition(b" ")
    same = hmac.compare_digest(shown.strip(), key.encode("ascii"))
    return same and scheme.lower() == b"bearer"
