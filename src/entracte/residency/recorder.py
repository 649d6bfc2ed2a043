"""Records what the device manager does and when, for a trace.

Unless recording is on, it costs one comparison per event.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from entracte.residency.backends.host import Instant
from entracte.residency.backends.protocol import Backend, Mark, Stream

from .buffer_key import BlockWeights, BufferKey

Lane = Literal["compute", "copies", "on_demand", "merges", "reader"]
Work = Literal["copy", "merge", "read"]


@dataclass(frozen=True, slots=True)
class BufferState:
    """The state of a buffer when recording began."""

    component: str
    key: BufferKey
    content: BlockWeights | None
    nbytes: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """Weights were loaded into a buffer. source: the buffer that they were copied from."""

    component: str
    key: BufferKey
    content: BlockWeights
    what: Work
    lane: Lane
    nbytes: int
    begin: Mark
    end: Mark
    source: BufferKey | None = None

    @property
    def peer(self) -> int | None:
        """The rank that they were copied from, if another one."""
        if self.source is None or self.source.tier != "peer":
            return None
        assert isinstance(self.source.of, int)
        return self.source.of


@dataclass(frozen=True, slots=True)
class Wait:
    """The compute stream waited, from the latest of `begins` on.

    unit: whose weights it waited for; None: it waited for memory.
    """

    component: str
    unit: int | None
    cause: Work
    begins: tuple[Mark, ...]
    end: Mark


@dataclass(frozen=True, slots=True)
class BlockRun:
    """A block occupied the compute stream.

    launched: when the host had enqueued all of it.
    """

    component: str
    unit: int
    begin: Mark
    end: Mark
    launched: float


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """A buffer was allocated, or freed (negative bytes), at a time of the host."""

    component: str
    key: BufferKey
    nbytes: int
    pinned: bool
    seconds: float


@dataclass(slots=True)
class Record:
    """Everything that happened, each kind in the order of enqueueing.

    adapted, adapted_blocks: the component that has several weight sets, and how many blocks it has.
    """

    adapted: str
    adapted_blocks: int
    buffers: list[BufferState] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    blocks: list[BlockRun] = field(default_factory=list)
    memory: list[MemoryChange] = field(default_factory=list)


class Recorder:
    """Records the events of all components, between `start` and `stop`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.record: Record | None = None
        self.lanes: Mapping[int, Lane] = {
            id(backend.compute): "compute",
            id(backend.copies): "copies",
            id(backend.on_demand): "on_demand",
            id(backend.merges): "merges",
        }

    def start(self, record: Record) -> None:
        """Start recording."""
        self.record = record

    def stop(self) -> None:
        """Stop recording."""
        self.record = None


class ComponentRecorder:
    """The recorder of one component. Methods that return None do so while recording is off."""

    def __init__(self, recorder: Recorder, component: str) -> None:
        self._recorder = recorder
        self._component = component

    def mark(self, stream: Stream) -> Mark | None:
        """Mark the stream's position before an event."""
        return None if self._recorder.record is None else stream.mark()

    def work_of(self, stream: Stream) -> Work:
        """What a stream does with weights."""
        return "merge" if stream is self._recorder.backend.merges else "copy"

    def waited(
        self, stream: Stream, begin: Mark, content: BlockWeights | None, cause: Work
    ) -> None:
        """Note that a stream waits; recorded only for the compute stream."""
        recorder = self._recorder
        if recorder.record is not None and stream is recorder.backend.compute:
            unit = None if content is None else content.unit
            wait = Wait(self._component, unit, cause, (begin,), stream.mark())
            recorder.record.waits.append(wait)

    @contextmanager
    def host_waits(self, content: BlockWeights | None, cause: Work) -> Iterator[None]:
        """Enclose a wait of the host for the reader thread."""
        recorder = self._recorder
        record = recorder.record
        if record is None:
            yield
            return
        unit = None if content is None else content.unit
        begins = Instant(recorder.backend.now()), recorder.backend.compute.mark()
        try:
            yield
        finally:
            end = Instant(recorder.backend.now())
            record.waits.append(Wait(self._component, unit, cause, begins, end))

    def transferred(
        self,
        stream: Stream,
        begin: Mark,
        key: BufferKey,
        nbytes: int,
        content: BlockWeights,
        source: BufferKey | None = None,
    ) -> None:
        """Note that loading weights into a buffer was enqueued."""
        recorder = self._recorder
        if recorder.record is None:
            return
        what, lane, end = self.work_of(stream), recorder.lanes[id(stream)], stream.mark()
        recorder.record.transfers.append(
            Transfer(self._component, key, content, what, lane, nbytes, begin, end, source)
        )
        if recorder.backend.unified:
            # There the compute thread itself does the work at once.
            recorder.record.waits.append(Wait(self._component, content.unit, what, (begin,), end))

    @contextmanager
    def reading(self, key: BufferKey, nbytes: int, content: BlockWeights) -> Iterator[None]:
        """Enclose a read from files into a buffer by the reader thread."""
        recorder = self._recorder
        if recorder.record is None:
            yield
            return
        record, begin = recorder.record, Instant(recorder.backend.now())
        yield
        end = Instant(recorder.backend.now())
        record.transfers.append(
            Transfer(self._component, key, content, "read", "reader", nbytes, begin, end)
        )

    def ran(self, unit: int, begin: Mark) -> None:
        """Note that a block occupied the compute stream from `begin` to now."""
        recorder = self._recorder
        if recorder.record is not None:
            end, launched = recorder.backend.compute.mark(), recorder.backend.now()
            recorder.record.blocks.append(BlockRun(self._component, unit, begin, end, launched))

    def memory(self, key: BufferKey, nbytes: int, pinned: bool) -> None:
        """A buffer was allocated, or given back (negative bytes)."""
        recorder = self._recorder
        if recorder.record is not None:
            now = recorder.backend.now()
            recorder.record.memory.append(MemoryChange(self._component, key, nbytes, pinned, now))
