"""An mp4 with H.264 video and AAC stereo sound."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.codec.context import ThreadType
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from torch import Tensor

from entracte.errors import MediaError
from entracte.frame_rates import exact_rate

from .sound import pad_to_picture
from .tags import NO_TAGS

AUDIO_BITRATE = 192_000
AUDIO_BLOCK = 1024
CRF = "18"


@contextmanager
def open_mp4(
    path: Path,
    frame_rate: float,
    sound: Tensor,
    sample_rate: int,
    tags: Mapping[str, str] = NO_TAGS,
) -> Iterator["Mp4Writer"]:
    """A writer for a file that is complete once the block has ended. tags: its metadata.

    Raises MediaError if the encoder refuses its input.
    """
    # Durations in samples instead of the usual milliseconds.
    options = {"movflags": "+faststart", "movie_timescale": str(sample_rate)}
    try:
        with av.open(str(path), "w", format="mp4", options=options) as container:
            container.metadata.update(tags)
            writer = Mp4Writer(container, exact_rate(frame_rate), sound, sample_rate)
            yield writer
            writer.end()
    except FFmpegError as error:
        if isinstance(error, OSError):  # of the system: no space, no permission
            raise
        raise MediaError(f"the video cannot be encoded: {error.strerror}") from error


class Mp4Writer:
    """Encodes into a container.

    The sound is given first, so that it can be interleaved with the frames as they arrive, and is
    padded with silence to the picture's length. Colours are limited-range BT.709 at every size, and
    tagged as such.
    """

    def __init__(
        self, container: OutputContainer, rate: Fraction, sound: Tensor, sample_rate: int
    ) -> None:
        """sound: [2, samples] float32 in -1..1."""
        self._container = container
        self._rate = rate
        self._sound = sound
        self._sample_rate = sample_rate
        self._video = container.add_stream("libx264", rate=rate)
        self._video.pix_fmt = "yuv420p"
        self._video.options = {"crf": CRF, "preset": "medium"}
        # PyAV's default, threads within a frame, leaves many cores idle.
        self._video.codec_context.thread_type = ThreadType.FRAME
        _tag_colours(self._video.codec_context)
        self._audio = container.add_stream("aac", rate=sample_rate, layout="stereo")
        self._audio.bit_rate = AUDIO_BITRATE
        self._whole = sound.shape[1] // AUDIO_BLOCK * AUDIO_BLOCK
        self._blocks = self._audio_frames(sound[:, : self._whole], begin=0)
        self._count = 0

    def write(self, frames: Tensor) -> None:
        """Add frames, [frames, height, width, 3] uint8."""
        for pixels in frames.numpy():
            if self._count == 0:
                self._video.height, self._video.width = pixels.shape[:2]
            frame = _to_bt709(pixels)
            frame.pts, frame.time_base = self._count, 1 / self._rate
            self._container.mux(self._video.encode(frame))
            self._count += 1
            shown = self._count / self._rate
            for block in self._blocks:
                self._container.mux(self._audio.encode(block))
                if Fraction(block.pts or 0, self._sample_rate) > shown:
                    break

    def end(self) -> None:
        """Encode the rest of the sound, and what the encoders hold back."""
        padded = pad_to_picture(self._sound, self._sample_rate, self._count, self._rate)
        for block in chain(self._blocks, self._audio_frames(padded, begin=self._whole)):
            self._container.mux(self._audio.encode(block))
        self._container.mux(self._video.encode())
        self._container.mux(self._audio.encode())

    def _audio_frames(self, sound: Tensor, begin: int) -> Iterator[av.AudioFrame]:
        samples = sound.numpy()
        for start in range(begin, samples.shape[1], AUDIO_BLOCK):
            block = np.ascontiguousarray(samples[:, start : start + AUDIO_BLOCK])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = self._sample_rate, start
            frame.time_base = Fraction(1, self._sample_rate)
            yield frame


def _tag_colours(codec: av.VideoCodecContext) -> None:
    """Tag the stream, and the container's `colr` box, with the colours of `_to_bt709`."""
    codec.color_primaries = ColorPrimaries.BT709
    codec.color_trc = ColorTrc.BT709
    codec.colorspace = Colorspace.ITU709
    codec.color_range = ColorRange.MPEG


def _to_bt709(pixels: np.ndarray) -> av.VideoFrame:
    """Convert RGB [height, width, 3] uint8 to limited-range 4:2:0.

    Players take untagged HD video for BT.709, but FFmpeg by itself converts to BT.601.
    """
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_trc=ColorTrc.BT709,
        dst_color_primaries=ColorPrimaries.BT709,
    )
