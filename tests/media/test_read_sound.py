"""Sounds are read as they are decoded, from a second on, or refused."""

import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from entracte.errors import MediaError
from entracte.media.read_sound import read_sound
from entracte.models.mel import log_mel, resample

SAMPLES = (np.arange(8000) % 100 * 300 - 15000).astype(np.int16)
STEREO = np.stack([SAMPLES, -SAMPLES])


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.T.tobytes())
    return path


@pytest.mark.parametrize("start", [0.0, 0.1, 0.3001])
def test_samples_from_a_second_on(tmp_path: Path, start: float) -> None:
    path = write_wav(tmp_path / "a.wav", STEREO)
    sound = read_sound(path, start, 0.15)
    first = round(start * 16_000)
    assert sound.rate == 16_000
    assert torch.equal(
        sound.samples, torch.from_numpy(STEREO[:, first : first + 2400] / 2**15).float()
    )
    assert sound.first(0.1).samples.shape == (2, 1600)


@pytest.mark.parametrize(
    ("codec", "suffix", "close"),
    [
        ("flac", "flac", 1e-9),
        ("pcm_f32le", "wav", 1e-9),
        ("pcm_u8", "wav", 1 / 128),
        ("aac", "m4a", 0.5),
    ],
)
def test_other_formats(tmp_path: Path, codec: str, suffix: str, close: float) -> None:
    """Packed and planar, integers and floats, within what they can hold."""
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(STEREO.T).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate = 16_000
        for resampled in av.AudioResampler(stream.format, "stereo", 16_000).resample(frame):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode())
    sound = read_sound(path, 0.0, 0.4)
    assert sound.samples.shape == (2, 6400)
    wanted = torch.from_numpy(STEREO[:, :6400] / 2**15).float()
    assert (sound.samples - wanted).abs().mean() <= close


def test_what_is_refused(tmp_path: Path) -> None:
    mono = write_wav(tmp_path / "mono.wav", SAMPLES[None])
    slow = write_wav(tmp_path / "slow.wav", STEREO, rate=4000)
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    for path, message in (
        (tmp_path / "missing.wav", "cannot read sound .*: No such file"),
        (text, "cannot be decoded"),
        (mono, "has 1 channels; the model hears two"),
        (slow, "4,000 samples a second; 8,000 to 192,000"),
    ):
        with pytest.raises(MediaError, match=message):
            read_sound(path, 0.0, 1.0)
    with pytest.raises(MediaError, match="has nothing at 2 s"):
        read_sound(write_wav(tmp_path / "short.wav", STEREO), 2.0, 1.0)


def test_a_tone_stays_where_it_is() -> None:
    """Resampled, and in the spectrogram."""

    def tone(rate: int) -> torch.Tensor:
        return (torch.arange(rate) * 2 * torch.pi * 440 / rate).sin().repeat(2, 1)

    for rate in (44_100, 48_000, 8_000):
        inner = slice(200, -200)
        assert (resample(tone(rate), rate, 16_000) - tone(16_000))[:, inner].abs().max() < 2e-2
        mel = log_mel(tone(rate), rate)
        assert mel.shape == (1, 2, 101, 64)
        assert mel[0, 0, 50].argmax() == log_mel(tone(16_000), 16_000)[0, 0, 50].argmax()
