"""Lossless output: a folder of PNG frames and a WAV file."""

import shutil
import uuid
import wave
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from entracte.frame_rates import exact_rate

from .sound import pad_to_picture


class FrameFolderWriter:
    """Writes `frame_00000.png` … and `audio.wav` into a folder that exists.

    All files appear there when the block ends without an error; otherwise none do. Frames of an
    earlier, longer video are removed. The sound is padded with silence to the picture's length.
    """

    def __init__(self, folder: Path, frame_rate: float, sound: Tensor, sample_rate: int) -> None:
        """sound: [2, samples] float32 in -1..1."""
        self._folder = folder
        self._rate = exact_rate(frame_rate)
        self._sound = sound
        self._sample_rate = sample_rate
        self._part = folder / f".part-{uuid.uuid4().hex[:8]}"
        self._count = 0

    def __enter__(self) -> "FrameFolderWriter":
        self._part.mkdir()
        return self

    def write(self, frames: Tensor) -> None:
        """Add frames, [frames, height, width, 3] uint8."""
        for pixels in frames.numpy():
            Image.fromarray(pixels).save(self._part / f"frame_{self._count:05d}.png")
            self._count += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                sound = pad_to_picture(self._sound, self._sample_rate, self._count, self._rate)
                write_wav(self._part / "audio.wav", sound, self._sample_rate)
                for old in self._folder.glob("frame_[0-9][0-9][0-9][0-9][0-9].png"):
                    old.unlink()
                for file in sorted(self._part.iterdir()):
                    file.replace(self._folder / file.name)
        finally:
            shutil.rmtree(self._part, ignore_errors=True)


def write_wav(path: Path, sound: Tensor, sample_rate: int) -> None:
    """Write [channels, samples] float32 in -1..1 as 16-bit PCM."""
    levels = (sound.clamp(-1, 1) * 32767).round().numpy().astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(levels.shape[0])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.ascontiguousarray(levels.T).tobytes())
