"""A record of what the device manager did and when, for a trace.

Nothing is recorded unless somebody asked for it; then a comparison is all that it costs.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from entracte.residency.backends.host import Instant
from entracte.residency.backends.protocol import Backend, Mark, Stream

if TYPE_CHECKING:
    from .buffer import Arena, ArenaKey, Content

Lane = Literal["compute", "copies", "loans", "merges", "reader"]
Work = Literal["copy", "merge", "read"]


@dataclass(frozen=True, slots=True)
class ArenaState:
    """An arena as it was when recording began."""

    component: str
    key: "ArenaKey"
    content: "Content | None"
    nbytes: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """Weights were brought into an arena."""

    component: str
    key: "ArenaKey"
    content: "Content"
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
    """An arena was allocated, or given back (negative bytes), at a time of the host."""

    component: str
    key: "ArenaKey"
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
    arenas: list[ArenaState] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    blocks: list[BlockRun] = field(default_factory=list)
    memory: list[MemoryChange] = field(default_factory=list)


class Journal:
    """Records what all components' arenas and runs tell it, between `start` and `stop`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.record: Record | None = None
        self.with_blocks = False
        self.lanes: Mapping[int, Lane] = {
            id(backend.compute): "compute",
            id(backend.copies): "copies",
            id(backend.loans): "loans",
            id(backend.merges): "merges",
        }

    def start(
        self, record: Record, arenas: Mapping[str, Iterable["Arena"]], with_blocks: bool
    ) -> None:
        """Begin to record. with_blocks: every block's run too."""
        record.arenas = [
            ArenaState(name, arena.key, arena.content, arena.memory.nbytes, arena.pinned)
            for name, held in arenas.items()
            for arena in held
        ]
        self.with_blocks = with_blocks
        self.record = record

    def stop(self) -> None:
        """Record no more."""
        self.record = None


class ComponentJournal:
    """The journal, for one component. Where a method returns None, nothing is being recorded."""

    def __init__(self, journal: Journal, component: str) -> None:
        self._journal = journal
        self._component = component

    def mark(self, stream: Stream) -> Mark | None:
        """The stream's point before something that will be told."""
        return None if self._journal.record is None else stream.mark()

    def mark_compute(self) -> Mark | None:
        """The compute stream's point, where blocks are recorded."""
        journal = self._journal
        if journal.record is None or not journal.with_blocks:
            return None
        return journal.backend.compute.mark()

    def work_of(self, stream: Stream) -> Work:
        """What a stream does with weights."""
        return "merge" if stream is self._journal.backend.merges else "copy"

    def waited(self, stream: Stream, begin: Mark, content: "Content | None", cause: Work) -> None:
        """A stream has been made to wait; of interest where it is the compute stream."""
        journal = self._journal
        if journal.record is not None and stream is journal.backend.compute:
            unit = None if content is None else content.unit
            wait = Wait(self._component, unit, cause, (begin,), stream.mark())
            journal.record.waits.append(wait)

    @contextmanager
    def host_waits(self, content: "Content | None", cause: Work) -> Iterator[None]:
        """The host itself waits for the reader thread."""
        journal = self._journal
        record = journal.record
        if record is None:
            yield
            return
        unit = None if content is None else content.unit
        begins = Instant(journal.backend.now()), journal.backend.compute.mark()
        try:
            yield
        finally:
            end = Instant(journal.backend.now())
            record.waits.append(Wait(self._component, unit, cause, begins, end))

    def transferred(
        self, stream: Stream, begin: Mark, arena: "Arena", content: "Content", in_task: bool
    ) -> None:
        """A stream was given the work of bringing weights into an arena."""
        journal = self._journal
        if journal.record is None:
            return
        what, lane, end = self.work_of(stream), journal.lanes[id(stream)], stream.mark()
        nbytes = arena.memory.nbytes
        journal.record.transfers.append(
            Transfer(self._component, arena.key, content, what, lane, nbytes, begin, end)
        )
        if journal.backend.unified and not in_task:
            # There the work was done at once, by who would have computed.
            journal.record.waits.append(Wait(self._component, content.unit, what, (begin,), end))

    @contextmanager
    def reading(self, arena: "Arena", content: "Content") -> Iterator[None]:
        """The reader thread reads weights from files into an arena."""
        journal = self._journal
        if journal.record is None:
            yield
            return
        record, begin = journal.record, Instant(journal.backend.now())
        yield
        end, nbytes = Instant(journal.backend.now()), arena.memory.nbytes
        record.transfers.append(
            Transfer(self._component, arena.key, content, "read", "reader", nbytes, begin, end)
        )

    def ran(self, unit: int, begin: Mark) -> None:
        """A block has been given the compute stream, from `begin` to now."""
        journal = self._journal
        if journal.record is not None:
            end = journal.backend.compute.mark()
            journal.record.blocks.append(BlockRun(self._component, unit, begin, end))

    def memory(self, key: "ArenaKey", nbytes: int, pinned: bool) -> None:
        """An arena was allocated, or given back (negative bytes)."""
        journal = self._journal
        if journal.record is not None:
            now = journal.backend.now()
            journal.record.memory.append(MemoryChange(self._component, key, nbytes, pinned, now))
