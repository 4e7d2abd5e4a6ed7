"""The lines of a text file of any size: counted first and then read in pieces, or as they come."""

from __future__ import annotations

import codecs
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, IncrementalNewlineDecoder, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, cast

from .whole_file import STDIN

# As much as a pipe holds.
CHUNK = 1 << 16


class Lines:
    """The lines of a UTF-8 file that can be read twice.

    `count` is their number, and `name` what messages call the file.

    A line ends as text files' lines do on any system; an empty line counts, and so does a last one
    without an end.

    Raises
    ------
    ValueError
        If the file is not UTF-8.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        lists = arriving(cast("BufferedReader", file), name, CHUNK)
        self.count = sum(len(lines) for lines in lists)
        # A byte order mark is not part of the first line.
        self._file = TextIOWrapper(file, encoding="utf-8-sig")

    def pieces(self, lines: int, characters: int) -> Iterator[list[str]]:
        """Yield the lines, without their ends, in lists of at most `lines`.

        A list also ends once it holds that many characters.

        Raises
        ------
        ValueError
            If the number of lines is no longer `count`.
        """
        self._file.seek(0)
        seen, piece, held = 0, list[str](), 0
        for line in self._file:
            seen += 1
            if seen > self.count:
                break
            piece.append(line.removesuffix("\n"))
            held += len(line)
            if len(piece) == lines or held >= characters:
                yield piece
                piece, held = [], 0
        if piece:
            yield piece
        if seen != self.count:
            raise ValueError(f"{self.name} changed while it was read")


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Open the lines of a file; "-" is standard input.

    What cannot be read twice (a pipe) is copied to a temporary file.
    """
    with tempfile.TemporaryFile() as copy:
        if path == STDIN:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.seek(0)
            yield Lines(copy, "standard input")
            return
        with open(path, "rb") as file:
            if file.seekable():
                yield Lines(file, str(path))
            else:
                shutil.copyfileobj(file, copy)
                copy.seek(0)
                yield Lines(copy, str(path))


def arriving_stdin(most: int) -> Iterator[list[str]]:
    """Yield the lines of standard input, whatever the locale's encoding is; as `arriving`."""
    return arriving(cast("BufferedReader", sys.stdin.buffer), "standard input", most)


def arriving(file: BufferedReader, name: str, most: int) -> Iterator[list[str]]:
    """Yield the lines of a UTF-8 file as they come, in lists of at most `most`.

    A list has the lines that are there, and does not wait for others. What a line is, is as in
    `Lines`.

    Raises
    ------
    ValueError
        If a line is not UTF-8, once those before it are given.
    """
    decoder = IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    begun: list[str] = []  # of a line whose end has not come
    first, seen, reason = True, 0, ""
    while not reason and (chunk := file.read1(CHUNK)):
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            reason = error.reason
            # The decoder is as it was, and what it was given ends where its object does.
            text = decoder.decode(chunk[: max(len(chunk) - len(error.object) + error.start, 0)])
        # Not by the decoder of "utf-8-sig", which after an error is no longer as it was.
        begun.append(text.removeprefix("\ufeff") if first else text)
        first = first and not text
        if "\n" not in text:
            continue
        *lines, rest = "".join(begun).split("\n")
        begun = [rest]
        seen += len(lines)
        yield from (lines[place : place + most] for place in range(0, len(lines), most))
    if not reason:
        try:
            begun.append(decoder.decode(b"", final=True))
        except UnicodeDecodeError as error:
            reason = error.reason
    if reason:
        raise ValueError(f"{name} is not UTF-8: {reason}, in line {seen + 1}")
    last = "".join(begun)
    if last:
        yield [last.removesuffix("\n")]
