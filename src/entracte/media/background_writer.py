"""A video that is written in a thread of its own: while frames arrive, and after they all have."""

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Self

from torch import Tensor

from entracte.errors import Cancelled

from .output import open_output
from .tags import NO_TAGS

# Chunks of frames that may wait before whoever adds them has to: about 1 GiB of a GPU's pieces.
WAITING_CHUNKS = 16

# How often those who wait look whether they should stop.
LOOK_SECONDS = 0.1


class BackgroundWriter:
    """Writes one video as `open_output` does. Use as a context manager.

    The block's end is the video's: the file appears a little later, and `result` says when. If the
    block raises, there is no file.

    check: called before every frame, in the thread; what it raises ends the writing, as an error.
    clock: in seconds. after: of an earlier video, which is written first.
    """

    def __init__(
        self,
        path: Path,
        check: Callable[[], None],
        clock: Callable[[], float],
        after: "BackgroundWriter | None" = None,
    ) -> None:
        self._path = path
        self._check = check
        self._clock = clock
        self._after = after
        self._chunks: queue.Queue[Tensor | None] = queue.Queue(WAITING_CHUNKS)
        self._abandoned = threading.Event()
        self._written: Future[float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._put(None)
        else:
            self.abandon()

    def start(
        self,
        frame_rate: float,
        sound: Tensor,
        sample_rate: int,
        tags: Mapping[str, str] = NO_TAGS,
    ) -> None:
        """Begin to write, once the earlier video is written or has failed: frames wait for one.

        sound: [2, samples] float32 in -1..1. Raises what `check` does meanwhile.
        """
        if self._after is not None:
            while not self._after.join(LOOK_SECONDS):
                self._check()
            self._after = None
        thread = ThreadPoolExecutor(1, "video writer")
        self._written = thread.submit(self._write, frame_rate, sound, sample_rate, tags)
        thread.shutdown(wait=False)

    def add(self, frames: Tensor) -> None:
        """Add frames, [frames, height, width, 3] uint8; waits while too many wait already.

        Raises what ended the writing.
        """
        self._put(frames)
        if self.join(0):
            self.result()

    def result(self) -> float:
        """Wait until the file is there, whole, and return when that was, by the clock.

        Raises MediaError if it cannot be written, and what `check` raised.
        """
        if self._written is None:
            raise RuntimeError("nothing was ever written")
        return self._written.result()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being written (any more), so long; returns whether that is so."""
        return self._written is None or not wait([self._written], timeout).not_done

    def abandon(self) -> None:
        """Leave no file, unless it is there already; wait until nothing is being written."""
        self._abandoned.set()
        self._put(None)
        self.join()

    def _put(self, chunk: Tensor | None) -> None:
        while not self.join(0):
            try:
                self._chunks.put(chunk, timeout=LOOK_SECONDS)
                return
            except queue.Full:
                continue

    def _write(
        self, frame_rate: float, sound: Tensor, sample_rate: int, tags: Mapping[str, str]
    ) -> float:
        with open_output(self._path, frame_rate, sound, sample_rate, tags) as writer:
            while (chunk := self._chunks.get()) is not None:
                for frame in chunk.split(1):
                    self._require_wanted()
                    writer.write(frame)
            self._require_wanted()
        return self._clock()

    def _require_wanted(self) -> None:
        if self._abandoned.is_set():
            raise Cancelled("the video was given up")
        self._check()
