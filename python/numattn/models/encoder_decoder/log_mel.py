"""Sound → the log-mel spectrogram that Whisper reads.

Powers of a short-time Fourier transform, of a Hann window with the sound mirrored at both ends, are
summed in bands whose width grows as hearing's does (Slaney, "Auditory Toolbox", 1998). Of their
logarithms what is 8 decades below the largest is raised to that. (Radford et al., "Robust Speech
Recognition via Large-Scale Weak Supervision", 2023.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arrays import Float32Array

PIECE = 1024  # frames whose spectra are in memory at once
LINEAR_TO, MELS_THERE = 1000.0, 15.0  # up to 1000 Hz a mel is 200/3 Hz
STEP = 27.0 / np.log(6.4)  # mels of a factor e beyond
FLOOR, DECADES = 1e-10, 8.0


@dataclass(frozen=True)
class LogMel:
    """How sound becomes frames."""

    bands: int
    rate: int = 16000
    """Samples a second."""
    window: int = 400
    """Samples of a frame."""
    hop: int = 160
    """Samples from a frame to the next."""

    def __call__(self, samples: Float32Array) -> Float32Array:
        """Return frames (bands, n // hop) of samples (n,); n must be more than half a window."""
        padded = np.pad(samples.astype(np.float64), self.window // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]
        frames = frames[: samples.size // self.hop]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        weights = mel_weights(self.bands, self.window, self.rate)
        result = np.empty((self.bands, len(frames)), dtype=np.float32)
        for start in range(0, len(frames), PIECE):
            spectra = np.fft.rfft(frames[start : start + PIECE] * hann, axis=1)
            power = spectra.real**2 + spectra.imag**2
            bands = np.maximum(power @ weights, FLOOR)
            result[:, start : start + PIECE] = np.log10(bands).T
        np.maximum(result, result.max() - np.float32(DECADES), out=result)
        result += 4
        result /= 4
        return result


def mel_weights(bands: int, window: int, rate: int) -> NDArray[np.float64]:
    """Return how much of each frequency each band has, (window // 2 + 1, bands).

    Triangles between the neighbours' centres, of the same area.
    """
    # The highest frequency is 8000 Hz whatever the rate.
    centres = hertz(np.linspace(0.0, mels(8000.0), bands + 2))
    frequencies = np.linspace(0.0, rate // 2, window // 2 + 1)[:, np.newaxis]
    rising = (frequencies - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - frequencies) / (centres[2:] - centres[1:-1])
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2.0 / (centres[2:] - centres[:-2]))


def mels(frequency: float) -> float:
    """Return a frequency in mels."""
    if frequency < LINEAR_TO:
        return 3.0 * frequency / 200.0
    return MELS_THERE + float(np.log(frequency / LINEAR_TO)) * float(STEP)


def hertz(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mels as frequencies."""
    beyond = LINEAR_TO * np.exp((values - MELS_THERE) / STEP)
    return np.where(values < MELS_THERE, 200.0 * values / 3.0, beyond)
