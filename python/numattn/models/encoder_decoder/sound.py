"""Sound as callers give it: samples, or a file of them.

WAV files are read here, all others by soundfile; sound at another rate than a model reads is
resampled by soxr. Both are an extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from numattn._arguments import bounded_integer

from ..arrays import Float32Array
from ..files.folder import regular_file
from .wav import OtherForm, is_wav, read_wav

LEAST_RATE, MOST_RATE = 1000, 1_000_000
INSTALL = "pip install 'numattn[speech]'"


def read_sound(path: str | Path) -> tuple[Float32Array, int]:
    """Return the samples (n,) of a sound file, of −1 … 1, and how many there are a second.

    Of several channels it is their mean.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If it is no WAV file of numbers, and soundfile is not installed.
    ValueError
        If it is no sound file, or is cut short.
    """
    path = regular_file(Path(path))
    with path.open("rb") as file:
        begins = file.read(12)
    if not is_wav(begins):
        return read_by_soundfile(path, f"{path} is no WAV file")
    try:
        return read_wav(path)
    except OtherForm as error:
        return read_by_soundfile(path, str(error))


def read_by_soundfile(path: Path, reason: str) -> tuple[Float32Array, int]:
    """Return what `read_sound` does of a file that is not read here, for a reason."""
    try:
        import soundfile
    except (ImportError, OSError):  # the second where its library is missing
        raise ImportError(f"{reason}; others are read by soundfile: {INSTALL}") from None
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # the second of a name that says raw
        raise ValueError(f"{path} is no sound file that is read: {error}") from None
    return samples.mean(axis=1, dtype=np.float64).astype(np.float32), int(rate)


def checked_sound(audio: Any, sampling_rate: int, wanted: int) -> Float32Array:
    """Return samples (n,) of a path or an array, at the rate wanted, or raise.

    Raises
    ------
    ImportError
        If they are at another rate, and soxr is not installed; or as for `read_sound`.
    TypeError
        If samples are not floats, or the rate is no whole number.
    ValueError
        If they are not (n,) with n of 1 or more, not finite, or at a rate of no sound.
    """
    if isinstance(audio, (str, Path)):
        samples, rate = read_sound(audio)
        name = str(audio)
    else:
        samples, rate = float_samples(audio), bounded_integer("sampling_rate", sampling_rate)
        name = "audio"
    if not samples.size:
        raise ValueError(f"{name} has no samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} must be finite, and has a NaN or an infinity")
    return samples if rate == wanted else resampled(name, samples, rate, wanted)


def resampled(name: str, samples: Float32Array, rate: int, wanted: int) -> Float32Array:
    """Return samples at another rate, or raise."""
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise ValueError(
            f"{name} has {rate} samples a second; {LEAST_RATE} … {MOST_RATE} can be resampled"
        )
    try:
        import soxr
    except ImportError:
        raise ImportError(
            f"{name} has {rate} samples a second, and the model reads {wanted}: resampling needs "
            f"soxr: {INSTALL}"
        ) from None
    result: Float32Array = soxr.resample(samples, rate, wanted)
    if not result.size:
        raise ValueError(f"{name} has {samples.size} samples, too few at {rate} a second")
    return result


def float_samples(audio: ArrayLike) -> Float32Array:
    """Return an array of samples as float32 (n,), or raise."""
    samples = np.asarray(audio)
    if samples.ndim != 1:
        raise ValueError(f"audio must be (n,), one channel of samples, not {samples.shape}")
    if samples.dtype.kind != "f":
        raise TypeError(
            f"audio must be floats of -1 … 1, not {samples.dtype}: divide 16-bit samples by 32768"
        )
    with np.errstate(over="ignore"):  # an infinity then is refused
        return samples.astype(np.float32, copy=False)
