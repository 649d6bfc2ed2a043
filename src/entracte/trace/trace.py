"""A record of one generation: its stages and steps in order, each with its time and memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

MEGABYTE = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory at the end of a stage, in MiB; peaks are since the process or the stage began.

    Device figures are of this process on its device, 0 on the CPU.
    """

    allocated_mb: float
    reserved_mb: float
    peak_allocated_mb: float
    peak_reserved_mb: float
    peak_host_anon_mb: float


@dataclass(slots=True)
class StageSpan:
    """One stage: when it began after the trace did, how long it took, and its steps, in seconds."""

    name: str
    start: float
    seconds: float = 0.0
    steps: list[float] = field(default_factory=list)
    memory: Memory | None = None


class Trace:
    """Collects the spans of one generation. Two stages of one name stay two spans."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.created = time.time()
        self.spans: list[StageSpan] = []
        self.counts: dict[str, int] = {}
        self._zero = time.perf_counter()
        self._end = self._zero

    @property
    def seconds(self) -> float:
        """From the trace's creation to the end of its last stage."""
        return self._end - self._zero

    @contextmanager
    def stage(self, name: str) -> Iterator[StageSpan]:
        """Time a stage; the modules' work that it started on the device is waited for."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        span = StageSpan(name, time.perf_counter() - self._zero)
        self.spans.append(span)
        try:
            yield span
        finally:
            self._synchronize()
            self._end = time.perf_counter()
            span.seconds = self._end - self._zero - span.start
            span.memory = read_memory(self.device)

    def step(self, span: StageSpan) -> None:
        """A step of a stage is done."""
        self._synchronize()
        elapsed = time.perf_counter() - self._zero - span.start
        span.steps.append(elapsed - sum(span.steps))

    def count(self, what: str, number: int = 1) -> None:
        """Count an event, such as a forward of the transformer."""
        self.counts[what] = self.counts.get(what, 0) + number

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            # Not the whole device: weights may be on their way for a later stage.
            torch.cuda.current_stream(self.device).synchronize()


def read_memory(device: torch.device) -> Memory:
    """Memory of this process now."""
    host = _peak_host_bytes() / MEGABYTE
    if device.type != "cuda":
        return Memory(0.0, 0.0, 0.0, 0.0, host)
    return Memory(
        torch.cuda.memory_allocated(device) / MEGABYTE,
        torch.cuda.memory_reserved(device) / MEGABYTE,
        torch.cuda.max_memory_allocated(device) / MEGABYTE,
        torch.cuda.max_memory_reserved(device) / MEGABYTE,
        host,
    )


def _peak_host_bytes() -> int:
    """Anonymous memory where the system tells it (Linux), else the peak resident size."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
