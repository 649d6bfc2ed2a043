"""A record of what the device manager did and when, for a trace.

Nothing is recorded unless somebody asked for it; then a comparison is all that it costs.
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
    """A buffer as it was when recording began."""

    component: str
    key: BufferKey
    content: BlockWeights | None
    nbytes: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """Weights were brought into a buffer."""

    component: str
    key: BufferKey
    content: BlockWeights
    what: Work
    lane: Lane
    nbytes: int
    begin: Mark
    end: Mark


@dataclass(frozen=True, slots=True)
class Wait:
    """Something kept the compute stream from its work, from the latest of `begins` on.

    unit: of which weights were waited for; None where memory was.
    """

    component: str
    unit: int | None
    cause: Work
    begins: tuple[Mark, ...]
    end: Mark


@dataclass(frozen=True, slots=True)
class BlockRun:
    """A block had the compute stream."""

    component: str
    unit: int
    begin: Mark
    end: Mark


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """A buffer was allocated, or given back (negative bytes), at a time of the host."""

    component: str
    key: BufferKey
    nbytes: int
    pinned: bool
    seconds: float


@dataclass(slots=True)
class Record:
    """Everything that happened, each kind in the order in which it was asked for.

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
    """Records what all components' buffers and runs tell it, between `start` and `stop`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.record: Record | None = None
        self.with_blocks = False
        self.lanes: Mapping[int, Lane] = {
            id(backend.compute): "compute",
            id(backend.copies): "copies",
            id(backend.on_demand): "on_demand",
            id(backend.merges): "merges",
        }

    def start(self, record: Record, with_blocks: bool) -> None:
        """Begin to record. with_blocks: every block's run too."""
        self.with_blocks = with_blocks
        self.record = record

    def stop(self) -> None:
        """Record no more."""
        self.record = None


class ComponentRecorder:
    """The recorder, for one component. Where a method returns None, nothing is being recorded."""

    def __init__(self, recorder: Recorder, component: str) -> None:
        self._recorder = recorder
        self._component = component

    def mark(self, stream: Stream) -> Mark | None:
        """The stream's point before something that will be told."""
        return None if self._recorder.record is None else stream.mark()

    def mark_compute(self) -> Mark | None:
        """The compute stream's point, where blocks are recorded."""
        recorder = self._recorder
        if recorder.record is None or not recorder.with_blocks:
            return None
        return recorder.backend.compute.mark()

    def work_of(self, stream: Stream) -> Work:
        """What a stream does with weights."""
        return "merge" if stream is self._recorder.backend.merges else "copy"

    def waited(
        self, stream: Stream, begin: Mark, content: BlockWeights | None, cause: Work
    ) -> None:
        """A stream has been made to wait; of interest where it is the compute stream."""
        recorder = self._recorder
        if recorder.record is not None and stream is recorder.backend.compute:
            unit = None if content is None else content.unit
            wait = Wait(self._component, unit, cause, (begin,), stream.mark())
            recorder.record.waits.append(wait)

    @contextmanager
    def host_waits(self, content: BlockWeights | None, cause: Work) -> Iterator[None]:
        """The host itself waits for the reader thread."""
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
        self, stream: Stream, begin: Mark, key: BufferKey, nbytes: int, content: BlockWeights
    ) -> None:
        """A stream was given the work of bringing weights into a buffer."""
        recorder = self._recorder
        if recorder.record is None:
            return
        what, lane, end = self.work_of(stream), recorder.lanes[id(stream)], stream.mark()
        recorder.record.transfers.append(
            Transfer(self._component, key, content, what, lane, nbytes, begin, end)
        )
        if recorder.backend.unified:
            # There the work was done at once, by who would have computed.
            recorder.record.waits.append(Wait(self._component, content.unit, what, (begin,), end))

    @contextmanager
    def reading(self, key: BufferKey, nbytes: int, content: BlockWeights) -> Iterator[None]:
        """The reader thread reads weights from files into a buffer."""
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
        """A block has been given the compute stream, from `begin` to now."""
        recorder = self._recorder
        if recorder.record is not None:
            end = recorder.backend.compute.mark()
            recorder.record.blocks.append(BlockRun(self._component, unit, begin, end))

    def memory(self, key: BufferKey, nbytes: int, pinned: bool) -> None:
        """A buffer was allocated, or given back (negative bytes)."""
        recorder = self._recorder
        if recorder.record is not None:
            now = recorder.backend.now()
            recorder.record.memory.append(MemoryChange(self._component, key, nbytes, pinned, now))
