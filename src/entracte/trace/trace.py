"""A record of one generation: its stages and steps in order, each with its time and memory."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

import torch

from entracte.residency import Backend, Event, Instant, Mark, Record

from .clock import Moments
from .launches import launch_waits
from .memory import Memory, read_memory
from .waits import Exposure, Parts, parts_of

# off: stages and steps. stages: also what everything waited for, and all work
# on weights. blocks: the same, and a dump has every block's run.
Level = Literal["off", "stages", "blocks"]

# Names a stretch of the host's code for a profiler, such as `torch.cuda.nvtx.range`.
Range = Callable[[str], AbstractContextManager[object]]


def no_range(name: str) -> AbstractContextManager[None]:  # noqa: ARG001
    """The default: no profiler is told."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What a trace records. range: names every stage and step for an outside profiler."""

    level: Level = "stages"
    range: Range = no_range


@dataclass(slots=True)
class StageSpan:
    """One stage: its start after the trace's, its duration and its steps, in seconds.

    of_host: the stage runs no module. marks: of the compute stream, at its begin and end.
    """

    name: str
    start: float
    of_host: bool
    seconds: float = 0.0
    steps: list[float] = field(default_factory=list)
    memory: Memory | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class HostWork:
    """Work of the host itself while the device idles, from the latest of `begins` on."""

    begins: tuple[Mark, float]
    end: float


@dataclass(frozen=True, slots=True)
class EndOfStep:
    """The end of a step in the device's work."""

    mark: Mark
    event: Event
    now: Callable[[], float]

    def passed(self) -> bool:
        """Whether the device has come there."""
        seconds = self.mark.passed()
        return seconds is not None and seconds <= self.now()

    def wait(self) -> None:
        """Have the host wait for the device."""
        self.event.synchronize()


class Trace:
    """Collects the spans of one generation. Two stages of the same name are two spans."""

    def __init__(self, backend: Backend, options: TraceOptions | None = None) -> None:
        self.options = options or TraceOptions()
        self.created = time.time()
        self.spans: list[StageSpan] = []
        self.counts: dict[str, int] = {}
        self.exposures: list[Exposure] = []
        self.record: Record | None = None
        # By stage, the share of its computing in which devices of a group exchange tensors.
        self.exchange_shares: Mapping[str, float] = {}
        self._host_work: list[HostWork] = []
        self._backend = backend
        self._steps: list[Mark] = []  # the ends of the latest stage's
        backend.set_clock()
        self.zero = backend.now()
        self._end = self.zero

    @property
    def seconds(self) -> float:
        """From the trace's creation to the end of its last stage."""
        return self._end - self.zero

    @contextmanager
    def stage(self, name: str, of_host: bool = False) -> Iterator[StageSpan]:
        """Time a stage, including the device work that its modules started.

        of_host: the stage runs no module.
        """
        device, now = self._backend.device, self._backend.now
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        span = StageSpan(name, now() - self.zero, of_host)
        self._steps = []
        begin = self._mark()
        self.spans.append(span)
        try:
            with self.options.range(name):
                yield span
        finally:
            span.marks = begin + self._mark()
            self._synchronize()
            self._end = now()
            span.seconds = self._end - self.zero - span.start
            span.steps = self._step_seconds(span)
            span.memory = read_memory(device, self._backend.bytes_for_peers)

    def host_stage(self, name: str, begin: float, end: float) -> None:
        """Add a stage that was the host's alone, beside whatever the device then did.

        begin, end: by the backend's clock. It has no memory: the device's is another generation's.
        """
        marks = () if self.options.level == "off" else (Instant(begin), Instant(end))
        span = StageSpan(name, begin - self.zero, True, end - begin, marks=marks)
        self.spans.append(span)
        self._end = max(self._end, end)

    def step(self) -> EndOfStep:
        """Note that the host has enqueued a step of the latest stage."""
        compute = self._backend.compute
        mark = compute.mark()
        self._steps.append(mark)
        return EndOfStep(mark, compute.record(), self._backend.now)

    @contextmanager
    def host_work(self, name: str) -> Iterator[None]:
        """Time work of the host itself within a stage, such as encoding frames."""
        if self.options.level == "off":
            yield
            return
        begins = self._backend.compute.mark(), self._backend.now()
        try:
            with self.options.range(name):
                yield
        finally:
            self._host_work.append(HostWork(begins, self._backend.now()))

    def count(self, what: str, number: int = 1) -> None:
        """Count an event, such as a forward of the transformer."""
        self.counts[what] = self.counts.get(what, 0) + number

    @contextmanager
    def weights(self, record: AbstractContextManager[Record]) -> Iterator[None]:
        """Record what the device manager does while a generation runs, unless the level is off.

        Afterwards `exposures` is complete.
        """
        with ExitStack() as recording:
            if self.options.level != "off":
                self.record = recording.enter_context(record)
            yield
        self.exposures = self._exposures()

    def parts(self) -> list[Parts]:
        """The parts of every stage, in order, then those of the time between stages.

        All zeros at level `off`.
        """
        if self.options.level == "off":
            return [Parts() for _ in range(len(self.spans) + 1)]
        moments, found, between, before = self.moments, [], Parts(), 0.0
        for span in self.spans:
            begin, end = map(moments.at_most, span.marks)
            parts = parts_of(begin, end, self.exposures, span.of_host)
            found.append(parts.exchanging(self.exchange_shares.get(span.name, 0.0)))
            between += parts_of(before, begin, self.exposures, of_host=True)
            before = end
        return [*found, between + parts_of(before, self.seconds, self.exposures, of_host=True)]

    @property
    def moments(self) -> Moments:
        """The clock of everything in the trace."""
        return Moments(self.zero, self._end)

    def _exposures(self) -> list[Exposure]:
        moments, found = self.moments, []
        for wait in [] if self.record is None else self.record.waits:
            begin, end = max(map(moments.at_most, wait.begins)), moments.at_most(wait.end)
            found.append(Exposure(begin, end, wait.cause, wait.component, wait.unit))
        if self.record is not None and not self._backend.unified:
            ends = [moments.at_most(mark) for span in self.spans for mark in span.marks[1:]]
            found += launch_waits(self.record.blocks, ends, moments)
        for work in self._host_work:
            begin = max(moments.at_most(work.begins[0]), moments.since_zero(work.begins[1]))
            found.append(Exposure(begin, moments.since_zero(work.end), "host"))
        kept = [each for each in found if each.begin < each.end]
        return sorted(kept, key=lambda exposure: exposure.begin)

    def _step_seconds(self, span: StageSpan) -> list[float]:
        ends = map(self.moments.at_most, self._steps)
        return [end - begin for begin, end in pairwise(accumulate(ends, max, initial=span.start))]

    def _mark(self) -> tuple[Mark, ...]:
        return () if self.options.level == "off" else (self._backend.compute.mark(),)

    def _synchronize(self) -> None:
        # Not the whole device: weights may be on their way for a later stage.
        self._backend.compute.record().synchronize()
