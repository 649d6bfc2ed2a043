"""Reads the pictures of a video within limits, since what a user gives us may be anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from entracte.errors import MediaError
from entracte.frame_rates import MAX_FRAME_RATE, MIN_FRAME_RATE

from .file_size import check_size
from .read_image import MAX_PIXELS, MAX_SIDE, MIN_SIDE

# Transfer functions of high dynamic range (ITU-T H.273): PQ and HLG.
HIGH_RANGE = (16, 18)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a file says of its video. width, height: upright. frames: as declared, or estimated."""

    width: int
    height: int
    frame_rate: Fraction
    frames: int


@dataclass(slots=True)
class Resampling:
    """How many frames of a file were shown again, or left out, to have those of another rate."""

    repeated: int = 0
    dropped: int = 0

    @property
    def words(self) -> str:
        """Empty where each became one."""
        if not self.repeated and not self.dropped:
            return ""
        return (
            "its frames are not those of the video's frame rate: "
            f"{self.repeated} were shown again and {self.dropped} left out"
        )


def video_facts(path: Path) -> VideoFacts:
    """Read the size and length of a video. Raises MediaError, as `read_frames` does."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        first = next(container.decode(stream), None)
        if first is None:
            raise MediaError(f"video {path} has no frames")
        _require_kind(path, first)
        rate = stream.average_rate or stream.guessed_rate
        if rate is None or not MIN_FRAME_RATE <= rate <= MAX_FRAME_RATE:
            raise MediaError(
                f"video {path} has {rate} frames a second; {MIN_FRAME_RATE:g} to "
                f"{MAX_FRAME_RATE:g} are read"
            )
        frames = stream.frames
        if not frames and stream.duration is not None and stream.time_base is not None:
            frames = int(stream.duration * stream.time_base * rate)
        elif not frames and container.duration is not None:
            frames = int(Fraction(container.duration, av.time_base) * rate)
        height, width = upright(first.to_ndarray(format="rgb24"), first.rotation).shape[:2]
        return VideoFacts(width, height, rate, frames)


def read_frames(
    path: Path, frames: int, rate: Fraction, resampling: Resampling
) -> Iterator[np.ndarray]:
    """The first frames of a video's first stream, evenly spaced: [height, width, 3] uint8, sRGB.

    A frame is the one that the file shows at its time, so frames of another or of no even rate are
    repeated or left out, which `resampling` counts. They are upright by the file's rotation.

    Raises MediaError if the file is missing, over 500 MiB or damaged, has no video, frames without
    times, more than 50 megapixels, sides below 2 or above 16,384 pixels or a high dynamic range, or
    is shorter.
    """
    with _opened(path) as container:
        made, origin = 0, None
        shown: VideoFrame | None = None
        fresh = False
        for frame in container.decode(container.streams.video[0]):
            if frame.time is None:
                raise MediaError(f"video {path} does not say when its frames are")
            origin = frame.time if origin is None else origin
            # The frame before is shown until this one.
            while shown is not None and made < frames and _time(made, rate) < frame.time - origin:
                resampling.repeated += not fresh
                yield _pixels(path, shown)
                made, fresh = made + 1, False
            resampling.dropped += fresh and made < frames
            if made == frames:
                return
            shown, fresh = frame, True
        if shown is not None and fresh and made < frames:
            yield _pixels(path, shown)
            made += 1
        if made < frames:
            raise MediaError(
                f"video {path} has {made} frames at {float(rate):g} a second; {frames} are needed"
            )


def upright(pixels: np.ndarray, rotation: int) -> np.ndarray:
    """[height, width, 3], turned counterclockwise by a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(pixels, rotation // 90))


def _time(frame: int, rate: Fraction) -> float:
    """When a frame is shown, with room for times that containers round."""
    return float((frame + Fraction(1, 10)) / rate)


def _pixels(path: Path, frame: VideoFrame) -> np.ndarray:
    _require_kind(path, frame)
    return upright(frame.to_ndarray(format="rgb24"), frame.rotation)


def _require_kind(path: Path, frame: VideoFrame) -> None:
    shape = f"video {path} has {frame.width} x {frame.height} pixels"
    shorter, longer = sorted((frame.width, frame.height))
    if shorter * longer > MAX_PIXELS:
        raise MediaError(f"{shape}; at most {MAX_PIXELS / 1e6:g} megapixels are read")
    if shorter < MIN_SIDE or longer > MAX_SIDE:
        raise MediaError(f"{shape}; sides of {MIN_SIDE} to {MAX_SIDE:,} are read")
    if int(frame.color_trc) in HIGH_RANGE:
        raise MediaError(f"video {path} has a high dynamic range; convert it to BT.709")


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    check_size("video", path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} has no video")
            yield container
    except (FFmpegError, UnicodeError) as error:
        raise MediaError(f"video {path} cannot be decoded: {error}") from None
