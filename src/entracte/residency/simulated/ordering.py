"""Vector clocks, and the accesses that they order.

Every participant (a stream, the host, the reader thread) numbers its own work. Its clock says, for
every participant, up to which number it has waited for that one's work.
"""

from dataclasses import dataclass

from .races import UnorderedRead, UnorderedWrite

VectorClock = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in a participant's work: what has happened by then, and the simulated time."""

    clock: VectorClock
    seconds: float


class Participant:
    """A stream, the host or the reader. seconds: when its work so far is done."""

    def __init__(self, name: str, index: int, participants: int) -> None:
        self.name = name
        self.index = index
        self.clock: VectorClock = (0,) * participants
        self.seconds = 0.0

    def tick(self) -> None:
        """Begin a new piece of work."""
        self.clock = tuple(count + (index == self.index) for index, count in enumerate(self.clock))

    def now(self) -> Moment:
        """The point after all work so far."""
        return Moment(self.clock, self.seconds)

    def join(self, moment: Moment) -> None:
        """Order later work after the moment."""
        self.clock = tuple(map(max, self.clock, moment.clock))
        self.seconds = max(self.seconds, moment.seconds)

    def has_seen(self, clock: VectorClock) -> bool:
        """Whether everything in the clock comes before this participant's next work."""
        return all(theirs <= mine for theirs, mine in zip(clock, self.clock, strict=True))


@dataclass(frozen=True, slots=True)
class Access:
    """A read or a write of an allocation."""

    who: Participant
    clock: VectorClock

    def seen_by(self, other: Participant) -> bool:
        """Whether the other comes after it. One number is enough: clocks hold whole pasts."""
        return self.clock[self.who.index] <= other.clock[self.who.index]


class History:
    """The last write of an allocation, and all last reads since. memory: its name."""

    def __init__(self, memory: str) -> None:
        self._memory = memory
        self._write: Access | None = None
        self._reads: dict[int, Access] = {}

    def read(self, who: Participant) -> None:
        """Note a read. Raises UnorderedRead."""
        if self._write is not None and not self._write.seen_by(who):
            raise UnorderedRead(
                f"missing wait before a read: {who.name} reads {self._memory}, "
                f"and has not waited for {self._write.who.name}, which wrote it"
            )
        self._reads[who.index] = Access(who, who.clock)

    def write(self, who: Participant) -> None:
        """Note a write. Raises UnorderedWrite."""
        for access in self.unseen_by(who):
            verb = "written" if access is self._write else "read"
            raise UnorderedWrite(
                f"{who.name} writes into {self._memory} while it is still being {verb} "
                f"by {access.who.name}, for which it has not waited"
            )
        self._write = Access(who, who.clock)
        self._reads.clear()

    def unseen_by(self, who: Participant) -> list[Access]:
        """The accesses for which `who` has not waited."""
        accesses = [*self._reads.values()]
        if self._write is not None:
            accesses.append(self._write)
        return [access for access in accesses if not access.seen_by(who)]
