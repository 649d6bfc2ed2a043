"""Times work in a stream."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Protocol

import torch

from entracte.residency import Backend, CudaStream, Stream, device_errors

SAMPLE_SECONDS = (
    0.005  # seconds of a sample, so that starting and stopping the clock does not matter
)
MOST_SAMPLES = 15


class Clock(Protocol):
    """Times work enqueued in a stream."""

    def seconds(self, stream: Stream, work: Callable[[], object]) -> float:
        """Enqueue work, and wait until it is done. Raises DeviceFault and OutOfMemory."""


class WallClock:
    """The host's clock, for work that is done immediately."""

    def seconds(self, stream: Stream, work: Callable[[], object]) -> float:
        stream.record().synchronize()
        start = time.perf_counter()
        work()
        stream.record().synchronize()
        return time.perf_counter() - start


class CudaEventClock:
    """The device's own clock, independent of when the host notices the end."""

    def seconds(self, stream: Stream, work: Callable[[], object]) -> float:
        if not isinstance(stream, CudaStream):
            raise TypeError("this stream is not a CUDA stream")
        with device_errors("measuring"):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream.stream)
            work()
            end.record(stream.stream)
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3


def clock_of(backend: Backend) -> Clock:
    """The clock that suits a backend."""
    return CudaEventClock() if backend.device.type == "cuda" else WallClock()


def median_seconds(
    clock: Clock, stream: Stream, work: Callable[[], object], budget: float
) -> float:
    """Median seconds of the work, of at least three samples; `budget` seconds if possible."""
    clock.seconds(stream, work)  # compiles, touches memory, wakes the device
    once = max(clock.seconds(stream, work), 1e-9)
    count = math.ceil(SAMPLE_SECONDS / once)

    def repeated() -> None:
        for _ in range(count):
            work()

    samples = [once] if count == 1 else []
    while len(samples) < 3 or (sum(samples) < budget and len(samples) < MOST_SAMPLES):
        samples.append(clock.seconds(stream, repeated))
    return statistics.median(samples) / count
