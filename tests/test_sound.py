"""numattn.models.encoder_decoder.sound: WAV files, other sound files, and other rates."""

from __future__ import annotations

import struct
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from numattn.models.encoder_decoder.sound import checked_sound, read_sound
from tiny_encoder_decoders import speech_like


def write_wav(path: Path, samples: NDArray[Any], width: int, channels: int, rate: int) -> Path:
    """Write samples (n, channels) of −1 … 1."""
    whole = np.round(samples * (2.0 ** (8 * width - 1) - 1)).astype("<i4")
    if width == 1:
        data = (whole + 128).astype(np.uint8).tobytes()
    else:
        data = whole.view(np.uint8).reshape(*whole.shape, 4)[..., :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_numbers(width: int, channels: int, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (500, channels))
    got, rate = read_sound(write_wav(tmp_path / "a.wav", sound, width, channels, 8000))
    assert rate == 8000 and got.dtype == np.float32
    step = 2.0 ** (1 - 8 * width)
    np.testing.assert_allclose(got, sound.mean(axis=1), rtol=0, atol=2 * step + 1e-7)


def riff(kind: int, bits: int, data: bytes, *, channels: int = 1, size: int | None = None) -> bytes:
    """Return a WAV file of some form, with a chunk of odd size before its samples."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, 16000, 16000 * frame, frame, bits)
    if kind == 0xFFFE:
        form += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", 1) + bytes(14)
    parts = [(b"fmt ", form), (b"LIST", b"odd"), (b"data", data)]
    body = b"WAVE"
    for name, part in parts:
        count = size if name == b"data" and size is not None else len(part)
        body += name + struct.pack("<I", count) + part + bytes(len(part) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats(bits: int, channels: int, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (500, channels)).astype(f"<f{bits // 8}")
    path = tmp_path / "a.wav"
    path.write_bytes(riff(3, bits, sound.tobytes(), channels=channels))
    got, rate = read_sound(path)
    assert rate == 16000
    np.testing.assert_allclose(got, sound.mean(axis=1, dtype=np.float64), rtol=0, atol=1e-7)


def test_other_forms_of_whole_numbers(tmp_path: Path) -> None:
    """One that says what channels are for, and one written to a pipe, whose size is not known."""
    samples = np.arange(-500, 500, dtype="<i2")
    for name, data in [
        ("extensible", riff(0xFFFE, 16, samples.tobytes())),
        ("pipe", riff(1, 16, samples.tobytes(), size=0xFFFFFFFF)),
    ]:
        path = tmp_path / f"{name}.wav"
        path.write_bytes(data)
        assert np.array_equal(read_sound(path)[0], samples / np.float32(32768))


def tones(rate: int, seconds: float) -> NDArray[np.float32]:
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * frequency * time) for frequency in (110, 700, 1900, 3100))
    return (0.2 * sound).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_other_rates(rate: int, tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    got = checked_sound(tones(rate, 0.5), rate, 16000)
    expected = tones(16000, 0.5)
    assert got.dtype == np.float32 and abs(got.size - expected.size) <= 1
    inside = slice(800, 7000)  # at the ends there is nothing before or after
    np.testing.assert_allclose(got[inside], expected[inside], rtol=0, atol=1e-4)
    path = write_wav(tmp_path / "a.wav", tones(rate, 0.5)[:, np.newaxis], 4, 1, rate)
    np.testing.assert_allclose(checked_sound(path, 0, 16000), got, rtol=0, atol=1e-6)


def test_no_more_than_half_the_rate_is_kept() -> None:
    """Frequencies that the new rate has not are left out, not mirrored."""
    pytest.importorskip("soxr")
    time = np.arange(22050) / 44100
    high = np.sin(2 * np.pi * 11000 * time).astype(np.float32)
    assert np.abs(checked_sound(high, 44100, 16000)[500:-500]).max() < 1e-4


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-4), ("ogg", 0.1), ("mp3", 0.1)])
def test_other_files(suffix: str, tolerance: float, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    if suffix.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile has no {suffix}")
    sound, path = tones(16000, 1.0), tmp_path / f"a.{suffix}"
    soundfile.write(str(path), np.stack([sound, 0.5 * sound], axis=1), 16000)
    got, rate = read_sound(path)
    assert rate == 16000 and got.size >= sound.size
    inside = slice(2000, 14000)
    assert np.abs(got[inside] - 0.75 * sound[inside]).max() < tolerance


def test_a_wav_file_of_another_form(tmp_path: Path) -> None:
    """Logarithms of 8 bits, as telephones have them."""
    soundfile = pytest.importorskip("soundfile")
    sound, path = tones(8000, 0.5), tmp_path / "a.wav"
    soundfile.write(str(path), sound, 8000, subtype="ULAW")
    got, rate = read_sound(path)
    assert rate == 8000 and np.abs(got - sound).max() < 0.03


def test_without_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("soxr", "soundfile"):
        monkeypatch.setitem(sys.modules, name, None)
    install = r"pip install 'numattn\[speech\]'"
    sound = speech_like(0.2)
    with pytest.raises(ImportError, match=f"audio has 44100 samples a second, and .*{install}"):
        checked_sound(sound, 44100, 16000)
    path = write_wav(tmp_path / "a.wav", sound[:, np.newaxis], 2, 1, 8000)
    with pytest.raises(ImportError, match=rf"a\.wav has 8000 samples a second, .*16000.*{install}"):
        checked_sound(path, 0, 16000)
    assert checked_sound(path, 0, 8000).size == sound.size
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(ImportError, match=rf"a\.flac is no WAV file; .*soundfile: {install}"):
        read_sound(tmp_path / "a.flac")
    (tmp_path / "b.wav").write_bytes(riff(7, 8, bytes(20)))
    with pytest.raises(ImportError, match=rf"b\.wav has samples of form 7 and 8 bits; .*{install}"):
        read_sound(tmp_path / "b.wav")


def test_samples_that_are_refused() -> None:
    sound = speech_like(0.2)
    with pytest.raises(ValueError, match=r"audio must be \(n,\)"):
        checked_sound(np.stack([sound, sound]), 16000, 16000)
    with pytest.raises(TypeError, match="divide 16-bit samples by 32768"):
        checked_sound((sound * 1000).astype(np.int16), 16000, 16000)
    for wrong in (np.nan, np.inf, 1e300):
        wide = np.where(np.arange(sound.size) == 9, wrong, sound.astype(np.float64))
        with pytest.raises(ValueError, match="audio must be finite"):
            checked_sound(wide, 16000, 16000)
    with pytest.raises(ValueError, match="audio has no samples"):
        checked_sound(sound[:0], 16000, 16000)
    with pytest.raises(ValueError, match="audio has 0 samples a second; 1000 … 1000000 can be"):
        checked_sound(sound, 0, 16000)
    with pytest.raises(TypeError, match="sampling_rate must be an integer, not 16000.5"):
        checked_sound(sound, 16000.5, 16000)  # type: ignore[arg-type]


def test_too_few_samples() -> None:
    pytest.importorskip("soxr")
    with pytest.raises(ValueError, match="audio has 1 samples, too few at 1000000 a second"):
        checked_sound(np.zeros(1, np.float32), 1_000_000, 16000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (riff(1, 16, bytes(20), size=40), "cut short: it has 20 bytes of samples, and says 40"),
        (riff(1, 16, bytes(21)), "cut short: it has 21 bytes of samples of 2"),
        (riff(1, 16, bytes(20))[:24], "cut short: it does not say what its samples are"),
        (riff(1, 16, bytes(20))[:40], "it has no samples, or is cut short"),
        (b"RIFF\4\0\0\0WAVE", "it has no samples, or is cut short"),
        (b"RIFF\4\0\0\0WAVEdata\0\0\0\0", "it has samples of no form"),
        (riff(3, 32, np.float32([0, np.nan]).tobytes()), "must be finite"),
        (riff(1, 16, b""), "has no samples"),
    ],
)
def test_files_that_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        checked_sound(path, 0, 16000)
    assert "a.wav" in str(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.raw", "a.mp3"])
def test_what_is_no_sound(name: str, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    for data in (b"", b"RIFF and no more", b"no sound"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} is no sound file that is read"):
            read_sound(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no b\.wav"):
        read_sound(tmp_path / "b.wav")
