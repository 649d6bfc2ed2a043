"""One piece of memory with a purpose: what it holds, and who still writes or reads it.

All ordering between streams is made here: nothing else waits for an event or records one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from entracte.residency.backends.protocol import Event, Stream, Task

from .recorder import ComponentRecorder, Work
from .weights import WeightSet

Tier = Literal["device", "host"]

# weights: a unit's, at a place of its own. kept: a merged unit's, beside its base. slot: whichever
# block comes next. factors: an adapter's, for a unit. factor slot: for whichever unit comes next.
# staging: between a file and the device.
Role = Literal["weights", "kept", "slot", "factors", "factor slot", "staging"]


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """What a buffer holds: a unit's weights under a weight set, or an adapter's factors for it."""

    unit: int
    weights: WeightSet | None = None
    adapter: str | None = None

    @property
    def of_weights(self) -> WeightSet:
        """The weight set; raises ValueError for factors."""
        if self.weights is None:
            raise ValueError("these are an adapter's factors")
        return self.weights

    @property
    def base(self) -> "BlockWeights":
        """The unit's weights without adapters."""
        return BlockWeights(self.unit, self.of_weights.plain)


@dataclass(frozen=True, slots=True)
class BufferKey:
    """A buffer's name. `index`: the unit, or the number of the slot.

    of: which copy of the weights on the device, which weight set's on the host, whose factors.
    """

    tier: Tier
    role: Role
    index: int
    of: int | str | WeightSet = 0


# What the reader thread reads into, on its way to the device.
STAGING = BufferKey("host", "staging", 0)


class Buffer:
    """Memory, what it holds (None: nothing of use), and the events that order its use."""

    def __init__(
        self, key: BufferKey, memory: Tensor, recorder: ComponentRecorder, pinned: bool = False
    ) -> None:
        self.key = key
        self.memory = memory
        self.pinned = pinned
        self.recorder = recorder
        self._by: Work = "copy"  # how it was written last, and how the reader thread fills it
        self._by_task: Work = "copy"
        self._content: BlockWeights | None = None
        self._expected: BlockWeights | None = None
        self._written: Event | None = None
        self._read: dict[int, Event] = {}
        self._seen: set[int] = set()  # streams that have waited for the last write
        self._task: Task | None = None

    @property
    def content(self) -> BlockWeights | None:
        """What it holds, or will hold when all that is under way is done; None: nothing of use."""
        return self._content if self._task is None else self._expected

    def expect(self, content: BlockWeights, submit: Callable[[], Task], by: Work) -> None:
        """Have the reader thread fill it; it is not touched otherwise before `join`."""
        self.join()
        self._by_task = by
        self._expected = content
        self._task = submit()

    def join(self) -> None:
        """Wait until the reader thread has done its part; raises what it raised."""
        if self._task is None:
            return
        task, self._task = self._task, None
        with self.recorder.host_waits(self._expected, self._by_task):
            task.result()

    def retire(self) -> None:
        """Wait for the reader thread; what it made, or failed to make, is of no interest."""
        if self._task is not None:
            with self.recorder.host_waits(self._expected, self._by_task):
                self._task.exception()
            self._task = None

    def acquire(self, stream: Stream) -> None:
        """Later work in this stream may read."""
        if self._task is not None:
            self.join()
        if id(stream) not in self._seen:
            if self._written is not None:
                before = self.recorder.mark(stream)
                stream.wait(self._written)
                if before is not None:
                    self.recorder.waited(stream, before, self._content, self._by)
            self._seen.add(id(stream))

    def release(self, stream: Stream) -> None:
        """All work so far in this stream that reads is before any later write."""
        self._read[id(stream)] = stream.record()

    def reading(self, stream: Stream) -> "Reading":
        """Work in a stream that reads."""
        return Reading(self, stream)

    def writing(self, stream: Stream, content: BlockWeights) -> "Writing":
        """Work in a stream that writes; the buffer holds `content` if nothing is raised."""
        self.join()
        return Writing(self, stream, content)

    def writing_in_task(self, stream: Stream, content: BlockWeights) -> "Writing":
        """`writing`, for the reader thread's task that fills this buffer."""
        return Writing(self, stream, content, in_task=True)

    def begin_writing(self, stream: Stream) -> None:
        """Later work in this stream may write; until `end_writing` the buffer holds nothing."""
        self._content = None
        for event in self._events():
            stream.wait(event)

    def end_writing(self, stream: Stream, content: BlockWeights | None) -> None:
        """All work so far in this stream that writes is before any later use."""
        self._written = stream.record()
        self._by = self.recorder.work_of(stream)
        self._read.clear()
        self._seen = {id(stream)}
        self._content = content

    @contextmanager
    def writing_on_host(self, content: BlockWeights) -> Iterator[None]:
        """Work of the host that writes; it waits until nobody else reads or writes."""
        self._content = None
        self.wait_on_host()
        with self.recorder.reading(self, content):
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
            self.recorder.waited(stream, before, self._content, self._by)

    def _events(self) -> list[Event]:
        return [*self._read.values(), *([] if self._written is None else [self._written])]


class Reading:
    """See `Buffer.reading`. A class, for blocks change hands within it and generators are slow."""

    __slots__ = ("_buffer", "_stream")

    def __init__(self, buffer: Buffer, stream: Stream) -> None:
        self._buffer = buffer
        self._stream = stream

    def __enter__(self) -> None:
        self._buffer.acquire(self._stream)

    def __exit__(self, *_: object) -> None:
        self._buffer.release(self._stream)


class Writing:
    """See `Buffer.writing`. Work under way when an error came is ordered like any other."""

    __slots__ = ("_begin", "_buffer", "_content", "_in_task", "_stream")

    def __init__(
        self, buffer: Buffer, stream: Stream, content: BlockWeights, in_task: bool = False
    ) -> None:
        self._buffer = buffer
        self._in_task = in_task
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
                self._stream, self._begin, buffer, self._content, self._in_task
            )
