"""A buffer: one piece of memory, its contents, and the events that order its use.

All ordering between streams happens here: nothing else waits for an event or records one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from entracte.residency.backends.protocol import Event, Stream

from .buffer_key import BlockWeights, BufferKey
from .pending_read import Pending
from .recorder import ComponentRecorder, Work
from .sharing import PeerOffer, SharedEntry


class Buffer:
    """Memory, its contents (None: undefined), and the events that order its use.

    While a read is pending, a task of the reader thread fills the buffer or reads from it; all
    others must call `join` before using it, the task itself must not. A shared buffer is filled
    once: by this rank, or by another one, for which `join` waits too.
    """

    def __init__(
        self,
        key: BufferKey,
        memory: Tensor,
        recorder: ComponentRecorder,
        pinned: bool = False,
        shared: SharedEntry | None = None,
        for_peers: bool = False,
    ) -> None:
        self.key = key
        self.memory = memory
        self.pinned = pinned
        self.shared = shared
        self.for_peers = for_peers
        self.offer: PeerOffer | None = None
        self.recorder = recorder
        self._pending: Pending | None = None
        self._content: BlockWeights | None = None
        self._written_by: Work = "copy"
        self._written: Event | None = None
        self._read: dict[int, Event] = {}
        self._seen: set[int] = set()  # streams that have waited for the last write

    @property
    def content(self) -> BlockWeights | None:
        """What it holds, or will hold once pending work is done; None: undefined."""
        return self._content if self._pending is None else self._pending.content

    def expect(self, read: Pending) -> None:
        """Hand the buffer to a read that has started; `join` must have been called before."""
        if self._pending is not None:
            raise RuntimeError(f"{self.key} is left to a read while another is pending")
        self._pending = read

    def join(self) -> None:
        """Wait until the pending read, if any, is done; raises what it raised."""
        if self._pending is not None:
            read, self._pending = self._pending, None
            read.wait()
            if self.shared is not None:  # filled by another rank, perhaps
                self._content = read.content
                self.pinned = self.shared.pin(fresh=False)

    def abandon(self) -> None:
        """Wait until the pending read, if any, is done, ignoring its result."""
        if self._pending is not None:
            self._pending.abandon()
            self._pending = None

    def withdraw(self, wait: bool = True) -> None:
        """Wait until no other rank copies from the buffer: before it is written or freed."""
        if self.offer is not None:
            self.offer.withdraw(wait)
            self.offer = None

    def written(self, content: BlockWeights) -> Event | None:
        """The last write, None if the host has waited for it; raises RuntimeError if the buffer
        does not hold this content.
        """
        if self._content != content:
            raise RuntimeError(f"{self.key} holds {self._content}, not {content}")
        return self._written

    def acquire(self, stream: Stream) -> None:
        """Let later work in this stream read; waits for a pending read."""
        if self._pending is not None:
            self.join()
        self.begin_reading(stream)

    def begin_reading(self, stream: Stream) -> None:
        """Let later work in this stream read, if nothing is pending, or in the pending task."""
        if id(stream) not in self._seen:
            if self._written is not None:
                before = self.recorder.mark(stream)
                stream.wait(self._written)
                if before is not None:
                    self.recorder.waited(stream, before, self._content, self._written_by)
            self._seen.add(id(stream))

    def release(self, stream: Stream) -> None:
        """Order later writes after all reads so far in this stream."""
        self._read[id(stream)] = stream.record()

    def reading(self, stream: Stream) -> "Reading":
        """Work in a stream that reads; `join` is called first, except in the pending task."""
        return Reading(self, stream)

    def writing(
        self, stream: Stream, content: BlockWeights, source: BufferKey | None = None
    ) -> "Writing":
        """Work in a stream that writes; `join` is called first, except in the pending task.

        The buffer holds `content` if nothing is raised. source: what it is copied from.
        """
        return Writing(self, stream, content, source)

    def begin_writing(self, stream: Stream) -> None:
        """Let later work in this stream write; until `end_writing` the contents are undefined."""
        self._content = None
        for event in self._events():
            stream.wait(event)

    def end_writing(self, stream: Stream, content: BlockWeights | None) -> None:
        """Order later use after all writes so far in this stream."""
        self._written = stream.record()
        self._written_by = self.recorder.work_of(stream)
        self._read.clear()
        self._seen = {id(stream)}
        self._content = content

    @contextmanager
    def writing_on_host(self, content: BlockWeights) -> Iterator[None]:
        """Enclose writes of the host, which waits for all other reads and writes first."""
        self._content = None
        self.wait_on_host()
        with self.recorder.reading(self.key, self.memory.nbytes, content):
            yield
        self._content = content

    def wait_on_host(self) -> None:
        """Make the host wait for all reads and writes."""
        for event in self._events():
            event.synchronize()
        self._written = None
        self._read.clear()
        self._seen.clear()

    def settle(self, stream: Stream) -> None:
        """Order later work in this stream after all use of the buffer."""
        before = self.recorder.mark(stream)
        for event in self._events():
            stream.wait(event)
        if before is not None:
            self.recorder.waited(stream, before, self._content, self._written_by)

    def _events(self) -> list[Event]:
        return [*self._read.values(), *([] if self._written is None else [self._written])]


class Reading:
    """See `Buffer.reading`. A class, because generators are slow and every block passes here."""

    __slots__ = ("_buffer", "_stream")

    def __init__(self, buffer: Buffer, stream: Stream) -> None:
        self._buffer = buffer
        self._stream = stream

    def __enter__(self) -> None:
        self._buffer.begin_reading(self._stream)

    def __exit__(self, *_: object) -> None:
        self._buffer.release(self._stream)


class Writing:
    """See `Buffer.writing`. Work enqueued before an error is ordered like any other."""

    __slots__ = ("_begin", "_buffer", "_content", "_source", "_stream")

    def __init__(
        self, buffer: Buffer, stream: Stream, content: BlockWeights, source: BufferKey | None
    ) -> None:
        self._buffer = buffer
        self._source = source
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
                self._stream,
                self._begin,
                buffer.key,
                buffer.memory.nbytes,
                self._content,
                self._source,
            )
