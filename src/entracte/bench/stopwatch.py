"""Stage times and peak memory of code without this engine's traces."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

PROCESS = Path("/proc/self")

# Written to `clear_refs`, it forgets the peak of resident memory.
FORGET_PEAK = "5"


class Stopwatch:
    """Times stages on a device, from its creation on; work that a stage started is waited for.

    Peak memory is of the whole process, other weights in it included: of tensors on a CUDA
    device, else of what is resident on the host (where the system is not Linux, ever since the
    process began).
    """

    def __init__(self, device: torch.device) -> None:
        self.stages: list[tuple[str, float]] = []
        self.steps: dict[str, list[float]] = {}
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif (PROCESS / "clear_refs").exists():
            (PROCESS / "clear_refs").write_text(FORGET_PEAK)
        self._synchronize()
        self._zero = self._mark = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._mark = time.perf_counter()
        yield
        self._synchronize()
        self.stages.append((name, time.perf_counter() - start))

    def step(self, name: str) -> None:
        """A step of the current stage is done; the first one counts from the stage's begin."""
        self._synchronize()
        now = time.perf_counter()
        self.steps.setdefault(name, []).append(now - self._mark)
        self._mark = now

    @property
    def seconds(self) -> float:
        """Since the creation."""
        self._synchronize()
        return time.perf_counter() - self._zero

    def peak_bytes(self) -> int:
        """Since the creation."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if (PROCESS / "status").exists():
            lines = (PROCESS / "status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def in_turns(
    steps: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each step; they take turns, so that their ratios hold on any machine.

    The first turn does not count. On a GPU its own clock is read, and a step is run once before it
    is timed, because how fast the chip runs depends on what it did just before.
    """
    on_gpu = device.type == "cuda"
    timed = _on_device if on_gpu else _on_host
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            if on_gpu:
                step()
            seconds = timed(step)
            if turn:
                found[name].append(seconds)
    return {name: statistics.median(each) for name, each in found.items()}


def _on_host(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _on_device(step: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1e3
