"""A transcript as text, as subtitles or as JSON.

txt     the text on a line; with times a line for each part: start, end, text, between tabs
srt     numbered parts with their times, which players of films read (SubRip)
vtt     the same for browsers (WebVTT)
json    an object on a line
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from numattn.models.encoder_decoder.transcript import Segment, Transcript

FORMATS = ("txt", "srt", "vtt", "json")
SUBTITLES = ("srt", "vtt")
# What WebVTT reads as marks of its own.
ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Part(NamedTuple):
    """What is said from one time to another, in seconds, on one line."""

    start: float
    end: float
    text: str


def written(file: Path, found: Transcript, form: str, times: bool, words: bool) -> str:
    """Return a transcript of a file in one of FORMATS, its last line ended.

    Parameters
    ----------
    file : Path
        What was transcribed.
    found : Transcript
        What is said.
    form : str
        One of FORMATS.
    times : bool
        Whether txt has a line for each part.
    words : bool
        Whether parts are words.
    """
    if form == "json":
        return as_json(file, found) + "\n"
    parts = parts_of(found.segments, words)
    if form == "srt":
        return "".join(
            f"{number}\n{clock(part.start, ',')} --> {clock(part.end, ',')}\n{part.text}\n\n"
            for number, part in enumerate(parts, start=1)
        )
    if form == "vtt":
        return "WEBVTT\n\n" + "".join(
            f"{clock(part.start, '.')} --> {clock(part.end, '.')}\n{escaped(part.text)}\n\n"
            for part in parts
        )
    if times:
        return "".join(f"{part.start:.2f}\t{part.end:.2f}\t{part.text}\n" for part in parts)
    return on_a_line(found.text) + "\n"


def as_json(file: Path, found: Transcript) -> str:
    """Return an object with all that was found, times rounded to milliseconds."""

    def part(start: float, end: float, text: str) -> dict[str, Any]:
        return {"start": round(start, 3), "end": round(end, 3), "text": text}

    segments = []
    for segment in found.segments:
        made = part(segment.start, segment.end, segment.text.strip())
        if segment.words is not None:
            made["words"] = [
                part(word.start, word.end, word.text.strip()) for word in segment.words
            ]
        segments.append(made)
    whole = {
        "file": str(file), "language": found.language, "text": found.text, "segments": segments
    }  # fmt: skip
    return json.dumps(whole, ensure_ascii=False)


def parts_of(segments: list[Segment], words: bool) -> Iterator[Part]:
    """Yield the parts, or the words, that have a text."""
    for segment in segments:
        for each in (segment.words or []) if words else [segment]:
            text = on_a_line(each.text)
            if text:
                yield Part(each.start, each.end, text)


def on_a_line(text: str) -> str:
    """Return a text whose spaces and ends of lines are single spaces."""
    return " ".join(text.split())


def escaped(text: str) -> str:
    """Return a text of WebVTT."""
    return "".join(ESCAPED.get(letter, letter) for letter in text)


def clock(seconds: float, mark: str) -> str:
    """Return a time as hours, minutes, seconds and thousandths.

    >>> clock(3723.5, ",")
    '01:02:03,500'
    """
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}{mark}{thousandths:03}"
