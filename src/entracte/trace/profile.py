"""What operations cost, stage by stage: torch's profiler beside the trace."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from entracte.errors import RequestError
from entracte.files import write_atomically

PREFIX = "entracte: "


@dataclass(frozen=True, slots=True)
class OperationCost:
    """An operation within a stage: how often, and its own time on host and device, in seconds."""

    stage: str
    name: str
    calls: int
    host_s: float
    device_s: float


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    host: float = 0.0
    device: float = 0.0


@dataclass(slots=True)
class Profile:
    """What a profiler saw, once `profiling` has ended."""

    costs: list[OperationCost] = field(default_factory=list)


def stage_range(name: str) -> AbstractContextManager[object]:
    """Names a stage to the profiler; a trace's `range`."""
    return record_function(PREFIX + name)


@contextmanager
def profiling(device: torch.device, torch_trace: Path | None = None) -> Iterator[Profile]:
    """Profile what is done within, in this thread.

    torch_trace: a Chrome trace of every operation, which may be large.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    found = Profile()
    with profile(activities=activities) as profiler:
        yield found
    found.costs = _costs(profiler)
    if torch_trace is not None:
        with write_atomically(torch_trace) as part:
            profiler.export_chrome_trace(str(part))


@contextmanager
def memory_history(device: torch.device, path: Path | None) -> Iterator[None]:
    """Save what PyTorch's allocator did as a file for pytorch.org/memory_viz; None: do not.

    Raises RequestError without a CUDA device.
    """
    if path is None:
        yield
        return
    if device.type != "cuda":
        raise RequestError("a memory snapshot needs a CUDA device: only its allocator keeps one")
    torch.cuda.memory._record_memory_history()
    try:
        yield
        with write_atomically(path) as part:
            torch.cuda.memory._dump_snapshot(str(part))
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def _costs(profiler: profile) -> list[OperationCost]:
    """Operations summed up by stage, the most expensive first."""
    events = profiler.events()
    stages = sorted(
        (event.time_range.start, event.time_range.end, event.name.removeprefix(PREFIX))
        for event in events
        if event.name.startswith(PREFIX)
    )
    starts = [start for start, _, _ in stages]
    sums: dict[tuple[str, str], _Sum] = defaultdict(_Sum)
    for event in events:
        if event.name.startswith(PREFIX):
            continue
        place = bisect_right(starts, event.time_range.start) - 1
        within = place >= 0 and event.time_range.start <= stages[place][1]
        each = sums[stages[place][2] if within else "between stages", event.name]
        each.calls += 1
        each.host += event.self_cpu_time_total / 1e6
        each.device += event.self_device_time_total / 1e6
    costs = [
        OperationCost(stage, name, each.calls, each.host, each.device)
        for (stage, name), each in sums.items()
    ]
    return sorted(costs, key=lambda cost: max(cost.host_s, cost.device_s), reverse=True)
