"""An mp4 with H.264 video and AAC stereo sound, encoded in a thread while frames arrive."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from torch import Tensor

from entracte.errors import MediaError
from entracte.frame_rates import exact_rate

from .sound import pad_to_picture

AUDIO_BITRATE = 192_000
AUDIO_BLOCK = 1024
CRF = "18"

# Chunks of frames that may wait for the encoder before the decoder has to.
WAITING_CHUNKS = 2


class Mp4Writer:
    """Writes one file. Use as a context manager: the file is complete once the block has ended.

    The sound is given first, so that it can be interleaved with the frames as they arrive, and is
    padded with silence to the picture's length. Colours are limited-range BT.709 at every size, and
    tagged as such. Raises MediaError if the encoder refuses its input.
    """

    def __init__(self, path: Path, frame_rate: float, sound: Tensor, sample_rate: int) -> None:
        """sound: [2, samples] float32 in -1..1."""
        self._path = path
        self._rate = exact_rate(frame_rate)
        self._sound = sound
        self._sample_rate = sample_rate
        self._chunks: queue.Queue[Tensor | None] = queue.Queue(WAITING_CHUNKS)
        self._abandoned = threading.Event()
        self._thread = ThreadPoolExecutor(1, "mp4 encoder")

    def __enter__(self) -> "Mp4Writer":
        self._encoding = self._thread.submit(self._encode)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abandoned.set()
        self._put(None)
        self._thread.shutdown()
        if kind is None:
            self._encoding.result()  # raises what stopped the encoder

    def write(self, frames: Tensor) -> None:
        """Add frames, [frames, height, width, 3] uint8; waits while the encoder is behind."""
        self._put(frames)
        if self._encoding.done():
            self._encoding.result()

    def _put(self, chunk: Tensor | None) -> None:
        while not self._encoding.done():
            try:
                self._chunks.put(chunk, timeout=0.1)
                return
            except queue.Full:
                continue

    def _frames(self) -> Iterator[np.ndarray]:
        while (chunk := self._chunks.get()) is not None and not self._abandoned.is_set():
            yield from chunk.numpy()

    def _encode(self) -> None:
        try:
            # Durations in samples instead of the usual milliseconds.
            options = {"movflags": "+faststart", "movie_timescale": str(self._sample_rate)}
            with av.open(str(self._path), "w", format="mp4", options=options) as container:
                self._encode_into(container)
        except FFmpegError as error:
            if isinstance(error, OSError):  # of the system: no space, no permission
                raise
            raise MediaError(f"the video cannot be encoded: {error.strerror}") from error

    def _encode_into(self, container: OutputContainer) -> None:
        video = container.add_stream("libx264", rate=self._rate)
        video.pix_fmt = "yuv420p"
        video.options = {"crf": CRF, "preset": "medium"}
        _tag_colours(video.codec_context)
        audio = container.add_stream("aac", rate=self._sample_rate, layout="stereo")
        audio.bit_rate = AUDIO_BITRATE
        whole = self._sound.shape[1] // AUDIO_BLOCK * AUDIO_BLOCK
        sound = self._audio_frames(self._sound[:, :whole], begin=0)
        count = 0
        for count, pixels in enumerate(self._frames(), start=1):
            if count == 1:
                video.height, video.width = pixels.shape[:2]
            frame = _to_bt709(pixels)
            frame.pts, frame.time_base = count - 1, 1 / self._rate
            container.mux(video.encode(frame))
            shown = count / self._rate
            for block in sound:
                container.mux(audio.encode(block))
                if Fraction(block.pts or 0, self._sample_rate) > shown:
                    break
        if self._abandoned.is_set():
            return
        padded = pad_to_picture(self._sound, self._sample_rate, count, self._rate)
        for block in chain(sound, self._audio_frames(padded, begin=whole)):
            container.mux(audio.encode(block))
        container.mux(video.encode())
        container.mux(audio.encode())

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
