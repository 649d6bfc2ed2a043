"""The state of the simulated accelerator: participants, their unlanded work, and the rules."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from entracte.errors import DeviceFault
from entracte.residency.backends.protocol import Traffic

from .clock import Timing
from .faults import Faults
from .job import StreamJob, poison
from .memory import Allocation, MemoryBook
from .ordering import Moment, Participant
from .races import HostWaitInStep, NotLent

STREAMS = ("compute", "copies", "on_demand", "merges")
NAMES = (*STREAMS, "host", "reader")


class Everyone:
    """The participants of all ranks of a group, rank after rank, and their unlanded work."""

    def __init__(self, ranks: int) -> None:
        names = [f"{name} of rank {rank}" for rank in range(ranks) for name in NAMES]
        if ranks == 1:
            names = list(NAMES)
        self.participants = [Participant(name, i, len(names)) for i, name in enumerate(names)]
        self.unlanded: list[deque[tuple[int, StreamJob]]] = [deque() for _ in names]


class Machine:
    """What the backend, its streams and the watch over modules share.

    everyone: the participants of its group. rank: its own there.
    current: who runs Python code now, the host or the reader. steps: how many steps it is in.
    own_work: whether the backend itself touches memory, which is not checked.
    """

    def __init__(self, memory: MemoryBook, timing: Timing, everyone: Everyone, rank: int) -> None:
        self.memory = memory
        self.timing = timing
        self.faults = Faults()
        self.traffic = Traffic()
        self._everyone = everyone
        self.participants = everyone.participants[rank * len(NAMES) : (rank + 1) * len(NAMES)]
        self.streams = self.participants[: len(STREAMS)]
        self.compute, self.copies, self.on_demand, self.merges = self.streams
        self.host, self.reader = self.participants[len(STREAMS) :]
        self.current = self.host
        self.steps = 0
        self.own_work = False

    def enqueue(self, who: Participant, job: StreamJob) -> None:
        """Enqueue a job. Raises RaceError, and DeviceFault if planned."""
        if job.pageable:
            self._check_host_may_wait(f"a {job.operation} of pageable memory")
        who.join(self.current.now())
        who.tick()
        for memory in job.reads:
            memory.read(who)
        for memory in job.writes:
            memory.write(who)
        self._land_before(who, job)
        if self.faults.due(job.operation):
            with self.working():
                poison(job.written)
            raise DeviceFault(f"the {job.operation} in {who.name} failed, as planned")
        with self.working():
            poison(job.in_flight)
        what = f"{job.operation} {job.engine}" if job.operation == "copy" else job.operation
        (job.link or self.timing).occupy(who, job.engine, job.seconds, what)
        if job.pageable:
            self.current.seconds = max(self.current.seconds, who.seconds)
        self._everyone.unlanded[who.index].append((who.clock[who.index], job))
        # Modules run as soon as they are called, so what they follow must have landed; and nobody
        # could tell when a copy into memory that is not ours lands.
        if who is self.compute or (job.pageable and not job.writes):
            self._land(who, who.clock[who.index])

    def wait(self, who: Participant, moment: Moment) -> None:
        """Order later work of `who` after the moment; what it waits for lands."""
        for stream in self._everyone.participants:
            self._land(stream, moment.clock[stream.index])
        who.join(moment)

    def wait_here(self, moment: Moment, what: str) -> None:
        """Make the host, or the reader, wait. Raises HostWaitInStep if the host must not."""
        if not self.current.has_seen(moment.clock):
            self._check_host_may_wait(what)
        self.wait(self.current, moment)

    def module_touches(self, memory: Allocation, writes: bool) -> None:
        """Note that module code reads or writes memory. Raises RaceError."""
        who = self.current
        if memory.place == "device":
            who = self.compute
            who.join(self.current.now())
            memory.check("a module")
            if not memory.lent:
                raise NotLent(f"a module touches {memory.name}, which is not lent")
        self.touch(who, memory, writes)

    def touch(self, who: Participant, memory: Allocation, writes: bool) -> None:
        """Note an immediate read or write of memory. Raises RaceError."""
        who.tick()
        if writes:
            memory.write(who)
        else:
            memory.read(who)

    def free(self, memory: Allocation) -> None:
        """Free memory after all work on it. Raises UseAfterRelease and HostWaitInStep."""
        memory.check("free")
        for access in memory.history.unseen_by(self.current):
            moment = Moment(access.clock, access.who.seconds)
            self.wait_here(moment, f"giving back {memory.name}")
        with self.working():
            self.memory.free(memory)

    @contextmanager
    def working(self) -> Iterator[None]:
        """The backend itself touches memory within it."""
        before, self.own_work = self.own_work, True
        try:
            yield
        finally:
            self.own_work = before

    def _land_before(self, who: Participant, job: StreamJob) -> None:
        """Land pending work of the stream on memory that the job is about to poison.

        Other streams have none: the job is ordered after them.
        """
        for number, earlier in reversed(self._everyone.unlanded[who.index]):
            if earlier.touches(job.writes):
                self._land(who, number)
                break

    def _land(self, who: Participant, last: int) -> None:
        """Do the stream's work up to the given number."""
        unlanded = self._everyone.unlanded[who.index]
        with self.working():
            while unlanded and unlanded[0][0] <= last:
                unlanded.popleft()[1].land()

    def _check_host_may_wait(self, what: str) -> None:
        if self.steps and self.current is self.host:
            raise HostWaitInStep(f"{what} makes the host wait for the device inside a step")
