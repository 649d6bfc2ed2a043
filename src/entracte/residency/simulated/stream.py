"""Streams and events of the simulated accelerator."""

import torch
from torch import Tensor

from entracte.residency.backends.host import Instant
from entracte.residency.backends.protocol import Direction, Event, Mark, MergeProgram

from .clock import Timing
from .job import StreamJob, carry_out, not_among
from .machine import Machine
from .memory import Allocation, Side
from .ordering import Moment, Participant
from .program import SimulatedMergeProgram
from .races import UnjoinedTask
from .rates import SimulatedRates

_PLACES: dict[Direction, tuple[Side, Side]] = {  # of a copy's target and source
    "in": ("device", "host"),
    "out": ("host", "device"),
    "within": ("device", "device"),
    "peer": ("device", "device"),
}


class SimulatedEvent:
    """A point in a stream's work; `made`: the point in the work of who recorded it."""

    def __init__(self, machine: Machine, moment: Moment, made: Moment) -> None:
        self.moment = moment
        self._made = made
        self._machine = machine

    def check_known(self) -> None:
        """Raise UnjoinedTask where a task recorded it that the host has not waited for."""
        if not self._machine.current.has_seen(self._made.clock):
            raise UnjoinedTask("an event is used before the task that recorded it was waited for")

    def synchronize(self) -> None:
        self.check_known()
        self._machine.wait_here(self.moment, "waiting for an event")


class SimulatedStream:
    """A queue of work, done as late as the rules allow."""

    def __init__(self, machine: Machine, who: Participant, rates: SimulatedRates) -> None:
        self._machine = machine
        self._who = who
        self._rates = rates

    def wait(self, event: Event) -> None:
        if not isinstance(event, SimulatedEvent):
            raise TypeError("this event was recorded by another backend")
        event.check_known()
        self._machine.wait(self._who, event.moment)

    def record(self) -> Event:
        return SimulatedEvent(self._machine, self._who.now(), self._machine.current.now())

    def mark(self) -> Mark:
        # It is passed no earlier than it is asked for.
        return Instant(max(self._who.seconds, self._machine.current.seconds))

    def copy(self, target: Tensor, source: Tensor, direction: Direction) -> None:
        """Host memory that the backend did not allocate is pageable, and goes unchecked."""
        for each in (target, source):
            if each.dtype != torch.uint8 or each.shape != (target.numel(),):
                raise ValueError("a copy takes two flat uint8 tensors of one size")
        to, of = self._places(target, source, direction)
        link = self._link(of) if direction == "peer" and of is not None else None
        pageable = not all(each and (each.pinned or each.place == "device") for each in (to, of))
        # Such a source has been read when the call returns, and its owner may do what it likes.
        source = source.clone() if of is None else source
        job = StreamJob(
            operation="copy",
            engine=direction,
            seconds=self._rates.copy_seconds(direction, target.nbytes, pageable),
            reads=frozenset([of] if of else []),
            writes=frozenset([to] if to else []),
            written=(target,),
            in_flight=not_among((target,), (source,)),
            land=carry_out((), ((target, source),)),
            pageable=pageable,
            link=link,
        )
        self._machine.enqueue(self._who, job)
        self._machine.traffic.count(direction, target.nbytes)

    def merge(self, program: MergeProgram) -> None:
        if not isinstance(program, SimulatedMergeProgram):
            raise TypeError("these merges were prepared by another backend")
        self._machine.enqueue(self._who, program.job)
        traffic = self._machine.traffic
        traffic.merges += len(program.merges)
        traffic.expansions += len(program.expansions)
        traffic.count("within", sum(target.nbytes for target, _ in program.copies))

    def _link(self, source: Allocation) -> Timing:
        """The link of the device that has a copy's source, which is another one."""
        memory = self._machine.memory
        if memory.owns(source) or source.address not in memory.group.opened:
            raise ValueError(f'a copy "peer" needs memory of another device, not {source.name}')
        return memory.group.opened[source.address][1]

    def _places(
        self, target: Tensor, source: Tensor, direction: Direction
    ) -> tuple[Allocation | None, Allocation | None]:
        """The allocations of a copy's target and source; none for the host's own memory."""
        found = self._machine.memory.find(target), self._machine.memory.find(source)
        for each, place in zip(found, _PLACES[direction], strict=True):
            if (each.place if each else "host") != place:
                wrong = each.name if each else "memory that it did not allocate"
                raise ValueError(f'a copy "{direction}" needs {place} memory, not {wrong}')
        return found
