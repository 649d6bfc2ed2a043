"""An mp4 with H.264 video and AAC stereo sound, encoded on a thread while frames still come."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from torch import Tensor

AUDIO_BITRATE = 192_000
AUDIO_BLOCK = 1024
CRF = "18"

# Chunks of frames that may wait for the encoder before the decoder has to.
WAITING_CHUNKS = 2


class Mp4Writer:
    """Writes one file. Use as a context manager; the file is complete when the block ends well.

    The sound is given first, so that it can be interleaved with the frames as they come.
    """

    def __init__(self, path: Path, frame_rate: float, sound: Tensor, sample_rate: int) -> None:
        """sound: [2, samples] float32 in -1..1."""
        self._path = path
        self._rate = Fraction(frame_rate).limit_denominator(1001)
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
        """Add frames, [frames, height, width, 3] uint8; waits where the encoder is behind."""
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
        sound = self._audio_frames()
        with av.open(
            str(self._path), "w", format="mp4", options={"movflags": "+faststart"}
        ) as container:
            video = container.add_stream("libx264", rate=self._rate)
            video.pix_fmt = "yuv420p"
            video.options = {"crf": CRF, "preset": "medium"}
            audio = container.add_stream("aac", rate=self._sample_rate, layout="stereo")
            audio.bit_rate = AUDIO_BITRATE
            for number, pixels in enumerate(self._frames()):
                if number == 0:
                    video.height, video.width = pixels.shape[:2]
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, 1 / self._rate
                container.mux(video.encode(frame))
                shown = (number + 1) / self._rate
                for block in sound:
                    container.mux(audio.encode(block))
                    if Fraction(block.pts or 0, self._sample_rate) > shown:
                        break
            if self._abandoned.is_set():
                return
            for block in sound:
                container.mux(audio.encode(block))
            container.mux(video.encode())
            container.mux(audio.encode())

    def _audio_frames(self) -> Iterator[av.AudioFrame]:
        samples = self._sound.numpy()
        for start in range(0, samples.shape[1], AUDIO_BLOCK):
            block = np.ascontiguousarray(samples[:, start : start + AUDIO_BLOCK])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = self._sample_rate, start
            frame.time_base = Fraction(1, self._sample_rate)
            yield frame
