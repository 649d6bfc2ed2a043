"""A simulated device: checks every rule of the backends, and does everything as late as it may."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from entracte.errors import OutOfMemory
from entracte.residency.backends.board import Board
from entracte.residency.backends.peers import NoPeers, Peers
from entracte.residency.backends.protocol import Checks, HostMemory, MergeProgram, Stream, Task
from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge

from .clock import Timing
from .faults import Operation
from .gauges import Gauges
from .machine import Everyone, Machine
from .memory import Allocation, GroupMemory, MemoryBook, Side
from .ordering import Moment
from .program import prepare
from .races import UnjoinedTask, UnorderedWrite
from .rates import DEFAULT, SimulatedRates
from .reader import run_as_reader
from .stream import SimulatedStream
from .watch import ModuleWatch


class MemberPeers(Peers, Protocol):
    """The peers of a device in a simulated group, which is told of its machine."""

    machine: Machine


class MemberBoard(Board, Protocol):
    """Its board, likewise."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class Membership:
    """What a device shares with the others of a simulated group."""

    peers: MemberPeers
    board: MemberBoard
    everyone: Everyone
    memory: GroupMemory


class SimulatedAccelerator(Gauges):
    """A backend on CPU tensors.

    Memory is counted and limited, and poisoned (0xFF) while it is fresh, freed or being written.
    Copies and merges are done when something waits for them, except in the compute stream. What is
    not ordered by events, not lent or freed raises a RaceError, and so does a wait in a step.

    Limits: in bytes; pinned memory counts as host memory too. rates: for the simulated clock.
    member: of a `SimulatedGroup`, which makes its devices itself, and limits their host's memory.
    """

    def __init__(
        self,
        device_limit: int | None = None,
        host_limit: int | None = None,
        pinned_limit: int | None = None,
        rates: SimulatedRates = DEFAULT,
        keep_log: bool = False,
        member: "Membership | None" = None,
    ) -> None:
        self.name = "simulated"
        self.device = torch.device("cpu")
        self.unified = False
        self._rates = rates
        common = GroupMemory(host_limit, pinned_limit) if member is None else member.memory
        everyone = Everyone(1) if member is None else member.everyone
        self.peers: Peers = NoPeers() if member is None else member.peers
        self.board: Board | None = None if member is None else member.board
        self._memory = MemoryBook(device_limit, common)
        self._timing = Timing(keep_log)
        self._machine = machine = Machine(self._memory, self._timing, everyone, self.peers.rank)
        if member is not None:
            member.peers.machine = member.board.machine = machine
        super().__init__(machine)
        self._watch = ModuleWatch(machine)
        self.checks: Checks = self
        self.traffic = machine.traffic
        self.compute: Stream = SimulatedStream(machine, machine.compute, rates)
        self.copies: Stream = SimulatedStream(machine, machine.copies, rates)
        self.on_demand: Stream = SimulatedStream(machine, machine.on_demand, rates)
        self.merges: Stream = SimulatedStream(machine, machine.merges, rates)

    def fail(self, what: Operation, after: int = 0) -> None:
        """Make one operation fail: the next of its kind after `after` others.

        Allocations raise OutOfMemory. Copies and merges raise DeviceFault when they are enqueued;
        what they would have written is poisoned.
        """
        self._machine.faults.plan(what, after)

    def work(self, seconds: float) -> None:
        """Simulate a module's computing time; module code otherwise takes no simulated time."""
        compute = self._machine.compute
        compute.join(self._machine.current.now())
        compute.tick()
        self._timing.work(compute, seconds)

    def launch(self, seconds: float) -> None:
        """Simulate what the host takes to enqueue work; it otherwise takes no simulated time."""
        self._timing.alone(self._machine.current, seconds, "launch")

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return self._allocate("allocate", nbytes, pinned=False)[0]

    @property
    def bytes_for_peers(self) -> int:
        return 0  # torch has no statistics here

    def allocate_for_peers(self, nbytes: int) -> Tensor:
        return self._allocate("allocate", nbytes, pinned=False)[0]

    def export(self, memory: Tensor) -> bytes:
        allocation = self._find(memory)
        self._memory.group.opened[allocation.address] = allocation, self._timing
        return allocation.address.to_bytes(8, "little")

    def open_peer(self, handle: bytes) -> Tensor:
        """See Backend. Raises UseAfterRelease."""
        allocation, _ = self._memory.group.opened[int.from_bytes(handle, "little")]
        allocation.check("opening it")
        assert allocation.memory is not None
        return allocation.memory

    def close_peer(self, memory: Tensor) -> None:
        pass

    def allocate_host(self, nbytes: int, pinned: bool, name: str | None = None) -> HostMemory:
        if name is None or self.board is None:
            return HostMemory(*self._allocate("allocate_host", nbytes, pinned))
        self.board.join(name, bytes)
        shared = self._memory.group.shared.get(name)
        if shared is None:
            try:
                memory = self._allocate("allocate_host", nbytes, pinned)[0]
            except OutOfMemory:
                self.board.leave(name)
                raise
            shared = self._memory.share(name, self._find(memory))
        assert shared.memory is not None
        return HostMemory(shared.memory, shared.pinned, name)

    def pin(self, memory: HostMemory, fresh: bool) -> bool:  # noqa: ARG002
        return memory.pinned

    def free(self, memory: Tensor) -> None:
        """See Backend. Raises UnorderedWrite unless the compute stream is ordered after all use."""
        allocation, machine = self._find(memory), self._machine
        # What takes its place is enqueued after what the host has waited for.
        machine.compute.join(machine.current.now())
        for access in allocation.history.unseen_by(machine.compute):
            raise UnorderedWrite(
                f"{allocation.name} is freed while {access.who.name} uses it; the compute "
                "stream has not waited for that"
            )
        machine.free(allocation)

    def free_host(self, memory: HostMemory) -> None:
        """See Backend. Raises UnjoinedTask if a task that used the memory was not waited for."""
        allocation, machine = self._find(memory.bytes), self._machine
        if machine.reader in (each.who for each in allocation.history.unseen_by(machine.current)):
            raise UnjoinedTask(f"{allocation.name} is freed while a task may use it")
        if memory.name is not None and self.board is not None:
            for access in allocation.history.unseen_by(machine.current):
                if access.who in machine.participants:
                    moment = Moment(access.clock, access.who.seconds)
                    machine.wait_here(moment, f"giving back {allocation.name}")
            if not self.board.leave(memory.name):
                return
            del self._memory.group.shared[memory.name]
        machine.free(allocation)

    def prepare_merges(
        self,
        merges: Sequence[WeightMerge],
        copies: Sequence[tuple[Tensor, Tensor]],
        expansions: Sequence[Expansion] = (),
        quantisations: Sequence[Quantisation] = (),
    ) -> MergeProgram:
        """See Backend. Raises ValueError for memory that is not the device's."""
        memory, rates = self._machine.memory, self._rates
        return prepare(memory, rates, merges, copies, expansions, quantisations)

    def lend(self, memory: Tensor) -> None:
        allocation = self._find(memory)
        allocation.check("lend")
        allocation.lent = True

    def take_back(self, memory: Tensor) -> None:
        self._find(memory).lent = False

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within it, every tensor operation is checked. May be entered repeatedly."""
        with self._watch:
            yield

    @contextmanager
    def in_step(self) -> Iterator[None]:
        self._machine.steps += 1
        try:
            yield
        finally:
            self._machine.steps -= 1

    def host_writes(self, memory: Tensor) -> None:
        """Takes as long as reading that many bytes from a file."""
        self._host_touches(memory, writes=True)
        seconds = self._rates.read_seconds(memory.nbytes)
        self._timing.alone(self._machine.current, seconds, "read file")

    def host_reads(self, memory: Tensor) -> None:
        """Note that the host is about to read this memory, which only tests do."""
        self._host_touches(memory, writes=False)

    def read_ahead(self, task: Callable[[], None]) -> Task:
        """Runs the task now, as the reader; `result` raises what it raised, a RaceError at once."""
        return run_as_reader(self._machine, task)

    def now(self) -> float:
        return self._machine.current.seconds

    def set_clock(self) -> None:
        pass

    def synchronize(self) -> None:
        """Make the host wait for all streams; not for the reader, who has tasks for that."""
        machine = self._machine
        for stream in machine.streams:
            machine.wait_here(stream.now(), "synchronize")

    def close(self) -> None:
        self.synchronize()
        for allocation in self._memory.live():
            self._machine.free(allocation)

    def _allocate(self, what: Operation, nbytes: int, pinned: bool) -> tuple[Tensor, bool]:
        refused = self._machine.faults.due(what)
        place: Side = "device" if what == "allocate" else "host"
        with self._machine.working():
            allocation = self._memory.allocate(place, nbytes, pinned, refused)
        assert allocation.memory is not None
        return allocation.memory, allocation.pinned

    def _host_touches(self, memory: Tensor, writes: bool) -> None:
        allocation = self._memory.find(memory)
        if allocation is None:
            return
        if allocation.place == "device":
            raise ValueError(f"the host cannot touch {allocation.name}")
        self._machine.touch(self._machine.current, allocation, writes)

    def _find(self, memory: Tensor) -> Allocation:
        allocation = self._memory.find(memory)
        if allocation is None:
            raise ValueError("the simulated accelerator did not allocate this memory")
        return allocation
