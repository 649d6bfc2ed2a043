"""One piece of memory with a purpose: what it holds, and who still writes or reads it.

All ordering between streams is made here: nothing else waits for an event or records one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from entracte.residency.backends.protocol import Event, Stream

from .buffer_key import BlockWeights, BufferKey
from .pending_read import PendingRead
from .recorder import ComponentRecorder, Work


class Buffer:
    """Memory, what it holds (None: nothing of use), and the events that order its use.

    While a read is pending, a task of the reader thread fills it, or reads from it; nobody else may
    use it before `join`, which the task itself must not call.
    """

    def __init__(
        self, key: BufferKey, memory: Tensor, recorder: ComponentRecorder, pinned: bool = False
    ) -> None:
        self.key = key
        self.memory = memory
        self.pinned = pinned
        self.recorder = recorder
        self._pending: PendingRead | None = None
        self._content: BlockWeights | None = None
        self._written_by: Work = "copy"
        self._written: Event | None = None
        self._read: dict[int, Event] = {}
        self._seen: set[int] = set()  # streams that have waited for the last write

    @property
    def content(self) -> BlockWeights | None:
        """What it holds, or will hold when all that is under way is done; None: nothing of use."""
        return self._content if self._pending is None else self._pending.content

    def expect(self, read: PendingRead) -> None:
        """Leave the buffer to a read that has begun; `join` must have been called before."""
        if self._pending is not None:
            raise RuntimeError(f"{self.key} is left to a read while another is pending")
        self._pending = read

    def join(self) -> None:
        """Wait until the pending read, if any, is done; raises what it raised."""
        if self._pending is not None:
            read, self._pending = self._pending, None
            read.wait()

    def abandon(self) -> None:
        """Wait until the pending read, if any, is done; what it made is not wanted."""
        if self._pending is not None:
            self._pending.abandon()
            self._pending = None

    def acquire(self, stream: Stream) -> None:
        """Later work in this stream may read; what is pending is waited for."""
        if self._pending is not None:
            self.join()
        self.begin_reading(stream)

    def begin_reading(self, stream: Stream) -> None:
        """Later work in this stream may read, where nothing is pending, or in the pending task."""
        if id(stream) not in self._seen:
            if self._written is not None:
                before = self.recorder.mark(stream)
                stream.wait(self._written)
                if before is not None:
                    self.recorder.waited(stream, before, self._content, self._written_by)
            self._seen.add(id(stream))

    def release(self, stream: Stream) -> None:
        """All work so far in this stream that reads is before any later write."""
        self._read[id(stream)] = stream.record()

    def reading(self, stream: Stream) -> "Reading":
        """Work in a stream that reads; `join` is called first, except in the pending task."""
        return Reading(self, stream)

    def writing(self, stream: Stream, content: BlockWeights) -> "Writing":
        """Work in a stream that writes; `join` is called first, except in the pending task.

        The buffer holds `content` if nothing is raised.
        """
        return Writing(self, stream, content)

    def begin_writing(self, stream: Stream) -> None:
        """Later work in this stream may write; until `end_writing` the buffer holds nothing."""
        self._content = None
        for event in self._events():
            stream.wait(event)

    def end_writing(self, stream: Stream, content: BlockWeights | None) -> None:
        """All work so far in this stream that writes is before any later use."""
        self._written = stream.record()
        self._written_by = self.recorder.work_of(stream)
        self._read.clear()
        self._seen = {id(stream)}
        self._content = content

    @contextmanager
    def writing_on_host(self, content: BlockWeights) -> Iterator[None]:
        """Work of the host that writes; it waits until nobody else reads or writes."""
        self._content = None
        self.wait_on_host()
        with self.recorder.reading(self.key, self.memory.nbytes, content):
            yield
        self._content = content

    def wait_on_host(self) -> None:
        """Make the host wait until nobody reads or writes."""
        for event in self._events():
            event.synchronize()
        self._written = None
        self._read.clear()
        self._seen.clear()

    def settle(self, stream: Stream) -> None:
        """Later work in this stream is after all use of the buffer."""
        before = self.recorder.mark(stream)
        for event in self._events():
            stream.wait(event)
        if before is not None:
            self.recorder.waited(stream, before, self._content, self._written_by)

    def _events(self) -> list[Event]:
        return [*self._read.values(), *([] if self._written is None else [self._written])]


class Reading:
    """See `Buffer.reading`. A class, for blocks change hands within it and generators are slow."""

    __slots__ = ("_buffer", "_stream")

    def __init__(self, buffer: Buffer, stream: Stream) -> None:
        self._buffer = buffer
        self._stream = stream

    def __enter__(self) -> None:
        self._buffer.begin_reading(self._stream)

    def __exit__(self, *_: object) -> None:
        self._buffer.release(self._stream)


class Writing:
    """See `Buffer.writing`. Work under way when an error came is ordered like any other."""

    __slots__ = ("_begin", "_buffer", "_content", "_stream")

    def __init__(self, buffer: Buffer, stream: Stream, content: BlockWeights) -> None:
        self._buffer = buffer
        self._stream = stream
        self._content = content

    def __enter__(self) -> None:
        self._buffer.begin_writing(self._stream)
        self._begin = self._buffer.recorder.mark(self._stream)

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        buffer = self._buffer
        buffer.end_writing(self._stream, self._content if raised is None else None)
        if self._begin is not None:
            buffer.recorder.transferred(
                self._stream, self._begin, buffer.key, buffer.memory.nbytes, self._content
            )
