"""An mp4 with H.264 video and AAC stereo sound, encoded on a thread while frames still come."""

import queue
import threading
from collections.abc import Iterator
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
        self._error: BaseException | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mp4 encoder")

    def __enter__(self) -> "Mp4Writer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abandoned.set()
        self._put(None)
        self._thread.join()
        if kind is None:
            self._raise_error()

    def write(self, frames: Tensor) -> None:
        """Add frames, [frames, height, width, 3] uint8; waits where the encoder is behind."""
        self._put(frames)
        self._raise_error()

    def _put(self, chunk: Tensor | None) -> None:
        while self._thread.is_alive():
            try:
                self._chunks.put(chunk, timeout=0.1)
                return
            except queue.Full:
                continue

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _frames(self) -> Iterator[np.ndarray]:
        while (chunk := self._chunks.get()) is not None and not self._abandoned.is_set():
            yield from chunk.numpy()

    def _run(self) -> None:
        try:
            self._encode()
        except (OSError, ValueError) as error:  # PyAV's errors are of these kinds
            self._error = error

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
