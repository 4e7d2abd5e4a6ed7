"""Sound as callers give it: samples, or a WAV file of them."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import Float32Array
from ..files.folder import regular_file


def read_wav(path: str | Path) -> tuple[Float32Array, int]:
    """Return the samples (n,) of a WAV file, of −1 … 1, and how many there are a second.

    Of several channels it is their mean.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no WAV file of whole numbers (PCM) of 8, 16, 24 or 32 bits, or is cut short.
    """
    path = regular_file(Path(path))
    try:
        with wave.open(str(path), "rb") as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            rate, count = file.getframerate(), file.getnframes()
            data = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise ValueError(
            f"{path} is no WAV file that is read, which is one of whole numbers (PCM): {error}"
        ) from None
    if width not in (1, 2, 3, 4) or not channels:
        raise ValueError(f"{path} has samples of {8 * width} bits; 8, 16, 24 and 32 are read")
    if len(data) != count * channels * width:
        raise ValueError(f"{path} is cut short: it has {len(data)} bytes of samples")
    samples = whole_numbers(data, width).reshape(-1, channels)
    return (samples.mean(axis=1) / 2.0 ** (8 * width - 1)).astype(np.float32), rate


def whole_numbers(data: bytes, width: int) -> NDArray[Any]:
    """Return little-endian numbers of that many bytes; those of one byte stand around 128."""
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.int32) - 128
    if width == 3:
        wide = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] >> 8
    return np.frombuffer(data, f"<i{width}")


def checked_sound(audio: Any, sampling_rate: int, wanted: int) -> Float32Array:
    """Return samples (n,) of a path or an array, at the rate wanted, or raise.

    Raises
    ------
    TypeError
        If samples are not floats.
    ValueError
        If they are not (n,) with n of 1 or more, not finite, or at another rate.
    """
    if isinstance(audio, (str, Path)):
        samples, rate = read_wav(audio)
        name = str(audio)
    else:
        samples, rate, name = float_samples(audio), sampling_rate, "audio"
    if rate != wanted:
        raise ValueError(
            f"{name} has {rate} samples a second, and the model reads {wanted}: resample it first "
            f"(ffmpeg -i IN -ar {wanted} OUT.wav)"
        )
    if not samples.size:
        raise ValueError(f"{name} has no samples")
    return samples


def float_samples(audio: ArrayLike) -> Float32Array:
    """Return an array of samples as float32 (n,), or raise."""
    samples = np.asarray(audio)
    if samples.ndim != 1:
        raise ValueError(f"audio must be (n,), one channel of samples, not {samples.shape}")
    if samples.dtype.kind != "f":
        raise TypeError(
            f"audio must be floats of -1 … 1, not {samples.dtype}: divide 16-bit samples by 32768"
        )
    if not np.isfinite(samples).all():
        raise ValueError("audio must be finite, and has a NaN or an infinity")
    return samples.astype(np.float32, copy=False)
