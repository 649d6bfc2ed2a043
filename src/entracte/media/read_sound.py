"""Reads the sound of a file within limits, since what a user gives us may be anything."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from torch import Tensor

from entracte.errors import MediaError

from .file_size import check_size

MIN_RATE, MAX_RATE = 8_000, 192_000

CHANNELS = 2

# Seconds before the wanted ones that are decoded, since packets overlap.
AHEAD = 0.1

# Of integer samples: their middle, and the largest distance from it.
RANGES = {"uint8": (128, 128), "int16": (0, 2**15), "int32": (0, 2**31)}


@dataclass(frozen=True, slots=True)
class Sound:
    """Samples [2, samples] float32, usually in -1..1, at `rate` a second."""

    samples: Tensor
    rate: int

    def first(self, seconds: float) -> "Sound":
        """As much of it from the beginning."""
        return Sound(self.samples[:, : round(seconds * self.rate)], self.rate)


def has_sound(path: Path) -> bool:
    """Whether a file has a stream of sound. Raises MediaError for one that cannot be opened."""
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)
    except (OSError, FFmpegError, UnicodeError) as error:
        raise MediaError(f"{path} cannot be opened: {error}") from None


def read_sound(path: Path, start: float, seconds: float) -> Sound:
    """Read the first stream of sound of a file, from a second on, for at most so many seconds.

    Samples are as they are decoded, at the file's own rate. Raises MediaError if the file is
    missing, over 500 MiB or damaged, has no sound, has another number of channels than two or a
    rate below 8 or above 192 kHz, or ends before the start.
    """
    check_size("sound", path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise MediaError(f"{path} has no sound")
            stream = container.streams.audio[0]
            _require_kind(path, stream.channels, stream.rate)
            rate, wanted = stream.rate, round(seconds * stream.rate)
            # From the very beginning, the official pipeline decodes AAC without the packet before
            # the first sample, and so do we: a seek leaves it out.
            container.seek(int(max(0.0, start - AHEAD) * av.time_base))
            pieces: list[np.ndarray] = []
            found = 0
            for frame in container.decode(stream):
                if frame.time is None:
                    raise MediaError(f"sound {path} does not say when its samples are")
                if frame.sample_rate != rate or frame.layout.nb_channels != CHANNELS:
                    raise MediaError(f"sound {path} changes its rate or its channels on the way")
                before = round((start - frame.time) * rate) if not pieces else 0
                if before >= frame.samples:
                    continue
                pieces.append(_samples(frame)[:, max(0, before) :])
                found += pieces[-1].shape[1]
                if found >= wanted:
                    break
    except (FFmpegError, UnicodeError) as error:
        raise MediaError(f"sound {path} cannot be decoded: {error}") from None
    if not pieces:
        raise MediaError(f"sound {path} has nothing at {start:g} s")
    return Sound(torch.from_numpy(np.concatenate(pieces, axis=1)[:, :wanted].copy()), rate)


def _require_kind(path: Path, channels: int, rate: int) -> None:
    if channels != CHANNELS:
        raise MediaError(
            f"sound {path} has {channels} channels; the model hears two, so make it stereo"
        )
    if not MIN_RATE <= rate <= MAX_RATE:
        raise MediaError(
            f"sound {path} has {rate:,} samples a second; {MIN_RATE:,} to {MAX_RATE:,} are read"
        )


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """[channels, samples] float32, of packed or planar ones; integers as shares of the largest."""
    values: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, CHANNELS).T
    middle, half = RANGES.get(values.dtype.name, (0, 1))
    shares: np.ndarray = (values.astype(np.float64) - middle) / half
    return shares.astype(np.float32)
