"""Queues of work on a CUDA device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from entracte.errors import DeviceFault, OutOfMemory
from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge, merge

from .protocol import Direction, Event, MergeProgram, Traffic

if TYPE_CHECKING:
    from entracte.residency.kernels.lora_merge_triton import FusedMerges


@contextmanager
def device_errors(doing: str) -> Iterator[None]:
    """Raise what CUDA, or the CPU's allocator, reports as OutOfMemory or DeviceFault.

    doing: for the message.

    CUDA reports faults late, so the failure may be of earlier work.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"{doing}: {error}") from error
    except torch.AcceleratorError as error:
        raise DeviceFault(f"{doing}: {error}") from error
    except RuntimeError as error:
        # Triton, and some of torch, raise nothing more precise.
        if "DefaultCPUAllocator" in str(error):
            raise OutOfMemory(f"{doing}: {error}") from error
        if not any(sign in str(error) for sign in ("CUDA error", "[CUDA]")):
            raise
        raise DeviceFault(f"{doing}: {error}") from error


class CudaEvent:
    """A point in a stream's work."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.event = torch.cuda.Event()
        self.event.record(stream)

    def synchronize(self) -> None:
        with device_errors("waiting for the device"):
            self.event.synchronize()


class CudaClock:
    """Maps the device's time to the host's, by the time elapsed since a common moment."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self.set()

    def set(self) -> None:
        """Read both clocks at the same time; the host waits for the stream."""
        self._zero = torch.cuda.Event(enable_timing=True)
        with device_errors("setting the clock"):
            self._zero.record(self._stream)
            self._zero.synchronize()
        self._seconds = time.perf_counter()

    def seconds(self, event: torch.cuda.Event) -> float:
        """The host time of an event that has happened."""
        milliseconds: float = self._zero.elapsed_time(event)
        return self._seconds + milliseconds / 1e3


class CudaMark:
    """A point in a stream's work, to be timed."""

    def __init__(self, stream: torch.cuda.Stream, clock: CudaClock) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record(stream)
        self._clock = clock

    def passed(self) -> float | None:
        with device_errors("timing"):
            return self._clock.seconds(self._event) if self._event.query() else None


@dataclass(frozen=True, slots=True)
class CudaMergeProgram:
    """Merges, after copies (target, source) and expansions, and before quantisations.

    fused: one launch for all merges that the kernel can do, of weights in bfloat16, and one for
    those of every format that it reads by itself. plain: the other merges.
    count: the number of both. expanded: the number of weights that are expanded, several of them
    perhaps by one operation. home: the stream that it was prepared in, and must be used in.
    """

    fused: "tuple[FusedMerges, ...]"
    plain: tuple[WeightMerge, ...]
    copies: tuple[tuple[Tensor, Tensor], ...]
    expansions: tuple[Expansion, ...]
    quantisations: tuple[Quantisation, ...]
    count: int
    expanded: int
    home: torch.cuda.Stream


class CudaStream:
    """Work is enqueued, and the host continues at once.

    traffic, lock, clock: shared by all streams of a backend, since its reader thread copies too.
    """

    def __init__(
        self, stream: torch.cuda.Stream, traffic: Traffic, lock: Lock, clock: CudaClock
    ) -> None:
        self.stream = stream
        self._clock = clock
        self._traffic = traffic
        self._lock = lock

    def wait(self, event: Event) -> None:
        if not isinstance(event, CudaEvent):
            raise TypeError("this event is of another backend")
        with device_errors("ordering streams"):
            self.stream.wait_event(event.event)

    def record(self) -> CudaEvent:
        with device_errors("recording an event"):
            return CudaEvent(self.stream)

    def mark(self) -> CudaMark:
        with device_errors("recording an event"):
            return CudaMark(self.stream, self._clock)

    def copy(self, target: Tensor, source: Tensor, direction: Direction) -> None:
        with device_errors(f"copying {source.nbytes:,} bytes"), torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
        with self._lock:
            self._traffic.count(direction, target.nbytes)

    def merge(self, program: MergeProgram) -> None:
        if not isinstance(program, CudaMergeProgram):
            raise TypeError("these merges were prepared by another backend")
        if program.home != self.stream:
            raise ValueError("these merges were prepared for another stream")
        with device_errors("merging"), torch.cuda.stream(self.stream), torch.no_grad():
            for target, source in program.copies:
                target.copy_(source, non_blocking=True)
            for expansion in program.expansions:
                expansion.carry_out()
            for launch in program.fused:
                launch.launch()
            for each in program.plain:
                merge(each.weight, each.adapters, out=each.out)
            for quantisation in program.quantisations:
                quantisation.carry_out()
        with self._lock:
            self._traffic.merges += program.count
            self._traffic.expansions += program.expanded
            for target, _ in program.copies:
                self._traffic.count("within", target.nbytes)
