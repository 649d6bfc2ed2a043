"""The plain backend: device memory is host memory, and all work is done at once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.errors import OutOfMemory

from .backend import Direction, Event, HostMemory, MergeProgram, Stream, Task, Traffic
from .merge import WeightMerge, merge

ALIGNMENT = 256


def aligned_memory(nbytes: int) -> Tensor:
    """Host memory [nbytes] uint8 whose address is a multiple of 256; its contents are undefined.

    It is an ordinary tensor even inside `torch.inference_mode()`, so that it can be written later.
    """
    with torch.inference_mode(False):
        memory = torch.empty(nbytes + ALIGNMENT - 1, dtype=torch.uint8)
        return memory.narrow(0, -memory.data_ptr() % ALIGNMENT, nbytes)


class HostEvent:
    """Has always happened."""

    def synchronize(self) -> None:
        pass


class HostTask:
    """A task that has run."""

    def __init__(self, failure: Exception | None) -> None:
        self._failure = failure

    def result(self) -> None:
        if self._failure is not None:
            raise self._failure


@dataclass(frozen=True, slots=True)
class HostMergeProgram:
    """Merges and copies (target, source), to be carried out with the plain expression."""

    merges: tuple[WeightMerge, ...]
    copies: tuple[tuple[Tensor, Tensor], ...]


class HostStream:
    """Does everything at once."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def wait(self, event: Event) -> None:
        pass

    def record(self) -> Event:
        return HostEvent()

    def copy(self, target: Tensor, source: Tensor, direction: Direction) -> None:
        target.copy_(source)
        self._traffic.count(direction, target.nbytes)

    def merge(self, program: MergeProgram) -> None:
        if not isinstance(program, HostMergeProgram):
            raise TypeError("these merges were prepared by another backend")
        with torch.no_grad():
            for target, source in program.copies:
                target.copy_(source)
                self._traffic.count("within", target.nbytes)
            for each in program.merges:
                merge(each.weight, each.adapters, out=each.out)
                self._traffic.merges += 1


class HostBackend:
    """The CPU as a device, for small models and for machines without one.

    device_limit, host_limit: bytes that allocations may take together.
    """

    def __init__(self, device_limit: int | None = None, host_limit: int | None = None) -> None:
        self.name = "host"
        self.device = torch.device("cpu")
        self.unified = True
        self.traffic = Traffic()
        self.compute: Stream = HostStream(self.traffic)
        self.copies: Stream = HostStream(self.traffic)
        self.merges: Stream = HostStream(self.traffic)
        self.device_bytes = 0
        self.host_bytes = 0
        self._device_limit = device_limit
        self._host_limit = host_limit

    def allocate(self, nbytes: int) -> Tensor:
        _check("device", nbytes, self.device_bytes, self._device_limit)
        self.device_bytes += nbytes
        return aligned_memory(nbytes)

    def free(self, memory: Tensor) -> None:
        self.device_bytes -= memory.nbytes

    def allocate_host(self, nbytes: int, pinned: bool) -> HostMemory:  # noqa: ARG002 nothing to pin
        _check("host", nbytes, self.host_bytes, self._host_limit)
        self.host_bytes += nbytes
        return HostMemory(aligned_memory(nbytes), pinned=False)

    def free_host(self, memory: HostMemory) -> None:
        self.host_bytes -= memory.bytes.nbytes

    def prepare_merges(
        self, merges: Sequence[WeightMerge], copies: Sequence[tuple[Tensor, Tensor]]
    ) -> MergeProgram:
        return HostMergeProgram(tuple(merges), tuple(copies))

    def lend(self, memory: Tensor) -> None:
        pass

    def take_back(self, memory: Tensor) -> None:
        pass

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def in_step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def host_writes(self, memory: Tensor) -> None:
        pass

    def host_reads(self, memory: Tensor) -> None:
        pass

    def read_ahead(self, task: Callable[[], None]) -> Task:
        """Runs the task now; what it raised is raised by `result`, as with a real reader."""
        try:
            task()
        except Exception as failure:
            return HostTask(failure)
        return HostTask(None)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        self.device_bytes = self.host_bytes = 0


def _check(kind: str, nbytes: int, used: int, limit: int | None) -> None:
    if limit is not None and used + nbytes > limit:
        raise OutOfMemory(
            f"{kind} memory: {nbytes:,} bytes asked for, {used:,} in use, limit {limit:,}"
        )
