"""The CPU backend: device memory is host memory, and all work is done immediately."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.errors import OutOfMemory
from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge, merge

from .board import Board, open_shared_memory
from .peers import NoPeers, Peers
from .protocol import (
    Checks,
    Direction,
    Event,
    HostMemory,
    Mark,
    MergeProgram,
    NoChecks,
    Stream,
    Task,
    Traffic,
)


@torch.inference_mode(False)
def host_memory(nbytes: int) -> Tensor:
    """Host memory [nbytes] uint8, aligned to 64 bytes; its contents are undefined.

    It is an ordinary tensor even inside `torch.inference_mode()`, so that it can be written later.
    """
    return torch.empty(nbytes, dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class Instant:
    """A mark at a moment of the host: all work before it is done."""

    seconds: float

    def passed(self) -> float | None:
        return self.seconds


class HostEvent:
    """Has always happened."""

    def synchronize(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class HostMergeProgram:
    """Merges, copies (target, source) and expansions, executed with plain expressions."""

    merges: tuple[WeightMerge, ...]
    copies: tuple[tuple[Tensor, Tensor], ...]
    expansions: tuple[Expansion, ...]
    quantisations: tuple[Quantisation, ...]


class HostStream:
    """Executes everything immediately."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def wait(self, event: Event) -> None:
        pass

    def record(self) -> Event:
        return HostEvent()

    def mark(self) -> Mark:
        return Instant(time.perf_counter())

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
            for expansion in program.expansions:
                expansion.carry_out()
                self._traffic.expansions += 1
            for each in program.merges:
                merge(each.weight, each.adapters, out=each.out)
                self._traffic.merges += 1
            for quantisation in program.quantisations:
                quantisation.carry_out()


class HostBackend:
    """The CPU as a device, for small models and for machines without one.

    device_limit, host_limit: bytes of all allocations together. peers: its group (default: none).
    """

    def __init__(
        self,
        device_limit: int | None = None,
        host_limit: int | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.name = "host"
        self.device = torch.device("cpu")
        self.unified = True
        self.traffic = Traffic()
        self.checks: Checks = NoChecks()
        self.peers: Peers = peers or NoPeers()
        self._shared = open_shared_memory(self.peers)
        self.board: Board | None = self._shared
        self.compute: Stream = HostStream(self.traffic)
        self.copies: Stream = HostStream(self.traffic)
        self.on_demand: Stream = HostStream(self.traffic)
        self.merges: Stream = HostStream(self.traffic)
        self.device_bytes = 0
        self.host_bytes = 0
        self._handles: dict[int, bytes] = {}  # of memory that peers may open, by address
        self._reader = ThreadPoolExecutor(1, "entracte-reader")
        self._device_limit = device_limit
        self._host_limit = host_limit

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        _check("device", nbytes, self.device_bytes, self._device_limit)
        self.device_bytes += nbytes
        if again is None:
            return host_memory(nbytes)
        again.untyped_storage().resize_(nbytes)
        return again

    def free(self, memory: Tensor) -> None:
        """See Backend. Views of the memory must not be used unless it is allocated again."""
        self.device_bytes -= memory.nbytes
        if self._handles.pop(memory.data_ptr(), None) is not None and self._shared is not None:
            self._shared.unmap(memory, empty=True)
            return
        memory.untyped_storage().resize_(0)

    @property
    def bytes_for_peers(self) -> int:
        return 0  # torch has no statistics here

    def allocate_for_peers(self, nbytes: int) -> Tensor:
        if self._shared is None:
            raise RuntimeError("this rank has no peers")
        _check("device", nbytes, self.device_bytes, self._device_limit)
        self.device_bytes += nbytes
        handle = self._shared.allocate(nbytes)
        memory = self._shared.map(handle)
        self._handles[memory.data_ptr()] = handle
        return memory

    def export(self, memory: Tensor) -> bytes:
        return self._handles[memory.data_ptr()]

    def open_peer(self, handle: bytes) -> Tensor:
        if self._shared is None:
            raise RuntimeError("this rank has no peers")
        return self._shared.map(handle)

    def close_peer(self, memory: Tensor) -> None:
        if self._shared is not None:
            self._shared.unmap(memory, empty=False)

    def allocate_host(
        self,
        nbytes: int,
        pinned: bool,  # noqa: ARG002 nothing to pin
        name: str | None = None,
    ) -> HostMemory:
        _check("host", nbytes, self.host_bytes, self._host_limit)
        self.host_bytes += nbytes
        if name is not None and self._shared is not None:
            return HostMemory(self._shared.named(name, nbytes), pinned=False, name=name)
        return HostMemory(host_memory(nbytes), pinned=False)

    def pin(self, memory: HostMemory, fresh: bool) -> bool:  # noqa: ARG002
        return False

    def free_host(self, memory: HostMemory) -> None:
        self.host_bytes -= memory.bytes.nbytes
        if memory.name is not None and self._shared is not None:
            self._shared.unmap(memory.bytes, empty=self._shared.leave(memory.name))

    def prepare_merges(
        self,
        merges: Sequence[WeightMerge],
        copies: Sequence[tuple[Tensor, Tensor]],
        expansions: Sequence[Expansion] = (),
        quantisations: Sequence[Quantisation] = (),
    ) -> MergeProgram:
        return HostMergeProgram(
            tuple(merges), tuple(copies), tuple(expansions), tuple(quantisations)
        )

    def computing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def read_ahead(self, task: Callable[[], None]) -> Task:
        return self._reader.submit(task)

    def now(self) -> float:
        return time.perf_counter()

    def set_clock(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        self._reader.shutdown()
        self.device_bytes = self.host_bytes = 0
        if self._shared is not None:
            self._shared.close()


def _check(kind: str, nbytes: int, used: int, limit: int | None) -> None:
    if limit is not None and used + nbytes > limit:
        raise OutOfMemory(
            f"{kind} memory: {nbytes:,} bytes asked for, {used:,} in use, limit {limit:,}"
        )
