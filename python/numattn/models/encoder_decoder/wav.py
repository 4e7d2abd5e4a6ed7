"""WAV files: samples of whole numbers or floats, in chunks of RIFF.

The standard library's module reads neither floats nor, before Python 3.12, the form that names
what channels are for (WAVE_FORMAT_EXTENSIBLE), which ffmpeg writes for 24 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array

PCM, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE
# Forms → bits of a sample.
WIDTHS = {PCM: (8, 16, 24, 32), FLOATS: (32, 64)}
UNKNOWN_SIZE = 0xFFFFFFFF  # of a file that was written to a pipe


class OtherForm(ValueError):
    """A WAV file of samples in another form than is read."""


def is_wav(data: bytes) -> bool:
    """Return whether a file begins as a WAV file does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


def read_wav(path: Path) -> tuple[Float32Array, int]:
    """Return the samples (n,) of a WAV file, of −1 … 1, and how many there are a second.

    Of several channels it is their mean.

    Raises
    ------
    ValueError
        If it is no WAV file of whole numbers (PCM) of 8, 16, 24 or 32 bits or of floats of 32 or
        64, or is cut short; `OtherForm` if its samples are of another form.
    """
    data = path.read_bytes()
    if not is_wav(data):
        raise ValueError(f"{path} is no WAV file")
    form: tuple[int, int, int, int] | None = None
    for name, body, size in chunks(data):
        if name == b"fmt ":
            form = form_of(path, body)
        if name == b"data":
            if form is None:
                raise ValueError(f"{path} is no WAV file that is read: it has samples of no form")
            if len(body) < size != UNKNOWN_SIZE:
                raise ValueError(
                    f"{path} is cut short: it has {len(body)} bytes of samples, and says {size}"
                )
            return samples_of(path, body, form)
    raise ValueError(f"{path} is no WAV file that is read: it has no samples, or is cut short")


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield the name of each chunk, what is there of it, and its size."""
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        yield name, data[place + 8 : place + 8 + size], size
        place += 8 + size + size % 2


def form_of(path: Path, body: bytes) -> tuple[int, int, int, int]:
    """Return kind, channels, rate and bits, or raise."""
    if len(body) < 16:
        raise ValueError(f"{path} is cut short: it does not say what its samples are")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if kind == EXTENSIBLE and len(body) >= 26:
        kind = struct.unpack_from("<H", body, 24)[0]
    if bits not in WIDTHS.get(kind, ()) or not channels:
        raise OtherForm(
            f"{path} has samples of form {kind} and {bits} bits; whole numbers (PCM, form 1) of 8, "
            "16, 24 and 32 bits and floats (form 3) of 32 and 64 are read"
        )
    return kind, channels, rate, bits


def samples_of(
    path: Path, body: bytes, form: tuple[int, int, int, int]
) -> tuple[Float32Array, int]:
    """Return the mean of the channels of samples, and their rate."""
    kind, channels, rate, bits = form
    frame = channels * bits // 8
    if len(body) % frame:
        raise ValueError(f"{path} is cut short: it has {len(body)} bytes of samples of {frame}")
    if kind == FLOATS:
        samples = np.frombuffer(body, f"<f{bits // 8}").reshape(-1, channels)
        return samples.mean(axis=1, dtype=np.float64).astype(np.float32), rate
    whole = whole_numbers(body, bits // 8).reshape(-1, channels)
    return (whole.mean(axis=1) / 2.0 ** (bits - 1)).astype(np.float32), rate


def whole_numbers(data: bytes, width: int) -> NDArray[Any]:
    """Return little-endian numbers of that many bytes; those of one byte stand around 128."""
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.int32) - 128
    if width == 3:
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] >> 8
    return np.frombuffer(data, f"<i{width}")
