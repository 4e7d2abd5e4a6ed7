"""Fonts that have every sign of a text, among those installed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# What matplotlib brings along. It has Latin, Greek, Cyrillic, Arabic and Hebrew letters.
FIRST = "DejaVu Sans"
# Draws each sign as a box that says where it belongs. matplotlib falls back on it by itself.
PLACEHOLDERS = "Last Resort"


def families_for(text: str) -> tuple[list[str], str]:
    """Return the font families to draw a text with, and the signs that none of them has.

    The one with the most of what is still missing comes next; among equals, one without serifs.
    """
    from matplotlib import font_manager

    fonts = font_manager.fontManager
    families, missing = [FIRST], drawn(text)
    missing -= signs_of(fonts.findfont(FIRST), missing)
    if not missing:
        return families, ""
    # The first upright font of a family stands for it.
    files: dict[str, str] = {}
    for entry in fonts.ttflist:
        if entry.style == "normal" and not entry.name.startswith(PLACEHOLDERS):
            files.setdefault(entry.name, entry.fname)
    region = region_of(text)
    order = sorted(files, key=lambda name: ("Sans" not in name, not name.endswith(region), name))
    held = {name: signs_of(files[name], missing) for name in order}
    while missing:
        best = max(order, key=lambda name: len(held[name] & missing), default=FIRST)
        if not held.get(best, set()) & missing:
            break
        families.append(best)
        missing -= held[best]
    return families, "".join(sorted(missing))


def drawn(text: str) -> set[str]:
    """Return the signs of a text that a font must have: no spaces, controls or private ones."""
    return {sign for sign in text if unicodedata.category(sign)[0] not in "ZC"}


def signs_of(path: str, signs: Iterable[str]) -> set[str]:
    """Return those signs that a font has; none if it cannot be read."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(path)
    except (OSError, RuntimeError):  # as for a font of coloured bitmaps
        return set()
    return {sign for sign in signs if font.get_char_index(ord(sign))}


def region_of(text: str) -> str:
    """Return how fonts with the forms of Chinese characters usual for a text end their names."""
    names = [unicodedata.name(sign, "") for sign in text]
    if any(name.startswith(("HIRAGANA", "KATAKANA")) for name in names):
        return "JP"
    return "KR" if any(name.startswith("HANGUL") for name in names) else "SC"


def advice(missing: str) -> str:
    """Return which signs no font has, by name, and which packages of Debian have one."""
    shown = [f"{sign} ({unicodedata.name(sign, f'U+{ord(sign):04X}')})" for sign in missing[:3]]
    others = f" and {len(missing) - 3} more signs" if len(missing) > 3 else ""
    packages = " ".join(sorted({package_of(sign) for sign in missing}))
    return f"no installed font has {', '.join(shown)}{others}; on Debian: apt install {packages}"


def package_of(sign: str) -> str:
    """Return the package of Debian that is likely to have a font for a sign."""
    if unicodedata.category(sign) == "So":
        return "fonts-symbola"
    return "fonts-noto-cjk" if unicodedata.east_asian_width(sign) in "WF" else "fonts-noto-core"
