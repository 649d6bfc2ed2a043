"""A simulated machine with several devices: a rank each, links between them, one host memory."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from entracte.errors import PeerFailed

from .accelerator import Membership, SimulatedAccelerator
from .machine import Everyone, Machine
from .memory import GroupMemory
from .ordering import Moment
from .rates import DEFAULT, SimulatedRates

T = TypeVar("T")


class SimulatedGroup:
    """The devices of one machine, for programs that run as one rank on each.

    Ranks run one at a time, and change at every point where they meet, at random: `seed` tells how.
    So every order of events can be had again, and what no event or entry of the board orders raises
    a RaceError, across devices too. Ranks that all wait for each other fail at once.

    Limits: in bytes; of each device, and of the host for all ranks together.
    """

    def __init__(
        self,
        size: int,
        device_limit: int | None = None,
        host_limit: int | None = None,
        pinned_limit: int | None = None,
        rates: SimulatedRates = DEFAULT,
        keep_log: bool = False,
        seed: int = 0,
    ) -> None:
        memory, everyone = GroupMemory(host_limit, pinned_limit), Everyone(size)
        self._turns = RankTurns(size, seed)
        self._rounds: list[ExchangeRound] = []
        self._peers = [
            SimulatedPeers(rank, size, self._turns, self._rounds) for rank in range(size)
        ]
        entries: dict[str, BoardEntry] = {}
        self.backends = [
            SimulatedAccelerator(
                device_limit,
                rates=rates,
                keep_log=keep_log,
                member=Membership(
                    peers, SimulatedBoard(peers.rank, self._turns, entries), everyone, memory
                ),
            )
            for peers in self._peers
        ]

    def run(self, work: Callable[[SimulatedAccelerator], T]) -> list[T]:
        """Do every rank's work; returns what each returns. The first failure ends all, and is
        raised.
        """
        turns = self._turns
        turns.begin()
        self._rounds.clear()
        for peers in self._peers:
            peers.rounds = 0

        def of_rank(rank: int) -> T:
            with turns.taking_part(rank):
                return work(self.backends[rank])

        with ThreadPoolExecutor(len(self.backends)) as threads:
            tasks = [threads.submit(of_rank, rank) for rank in range(len(self.backends))]
            failures = [failure for task in tasks if (failure := task.exception()) is not None]
        # The cause rather than what the others made of it.
        for failure in sorted(failures, key=lambda each: isinstance(each, PeerFailed)):
            raise failure
        return [task.result() for task in tasks]


class RankTurns:
    """Lets one rank run at a time, which changes at random where ranks meet.

    failure: why a rank has failed, if one has.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.failure = ""
        self._size = size
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: dict[int, Callable[[], bool]] = {}
        self._running: list[int] = []
        self._turn = 0

    def begin(self) -> None:
        """Let all ranks run again."""
        self.failure = ""
        self._running = list(range(self._size))
        self._waiting.clear()
        self._turn = self._random.choice(self._running)

    @contextmanager
    def taking_part(self, rank: int) -> Iterator[None]:
        """A rank's work, when its turn comes, until it ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == rank)
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or f"rank {rank}: {error}"
            raise
        finally:
            self._running.remove(rank)
            self._pass_on()

    def change(self, rank: int) -> None:
        """Perhaps let another rank run."""
        self.until(rank, lambda: True)

    def until(self, rank: int, done: Callable[[], bool]) -> None:
        """Let others run until something is so. Raises PeerFailed if it cannot be."""
        if rank not in self._running:  # outside of a run there are no others
            if not done():
                raise PeerFailed(f"rank {rank} waits alone")
            return
        self._waiting[rank] = done
        self._pass_on()
        with self._changed:
            self._changed.wait_for(lambda: self._turn == rank)
        del self._waiting[rank]
        if not done():
            raise PeerFailed(self.failure or f"all ranks wait, rank {rank} too")

    def _pass_on(self) -> None:
        """Give the turn to a rank that can go on, or, where none can, to one that then fails."""
        able = [
            each
            for each in self._running
            if self.failure or each not in self._waiting or self._waiting[each]()
        ]
        with self._changed:
            if self._running:
                self._turn = self._random.choice(able or self._running)
            self._changed.notify_all()


# What every rank gave to an exchange, and when.
ExchangeRound = dict[int, tuple[object, Moment]]


class SimulatedPeers:
    """The other ranks of a simulated group; see `Peers`. rounds: how many exchanges there were."""

    machine: Machine

    def __init__(self, rank: int, size: int, turns: RankTurns, given: list[ExchangeRound]) -> None:
        self.rank = rank
        self.size = size
        self.rounds = 0
        self._turns = turns
        self._given = given

    def exchange(self, value: object) -> list[object]:
        if len(self._given) == self.rounds:
            self._given.append({})
        given = self._given[self.rounds]
        self.rounds += 1
        given[self.rank] = value, self.machine.current.now()
        self._turns.until(self.rank, lambda: len(given) == self.size)
        for _, moment in given.values():
            self.machine.wait(self.machine.current, moment)
        return [given[rank][0] for rank in range(self.size)]

    def check(self) -> None:
        if self._turns.failure:
            raise PeerFailed(self._turns.failure)


class BoardEntry:
    """An entry of the board.

    filler: who claimed it. ready: when it was made so. left: when ranks let go of it.
    """

    def __init__(self, handle: bytes) -> None:
        self.handle = handle
        self.holders: set[int] = set()
        self.filler: int | None = None
        self.ready: Moment | None = None
        self.left: list[Moment] = []


class SimulatedBoard:
    """The board of a simulated group, as one rank has it; see `Board`."""

    machine: Machine

    def __init__(self, rank: int, turns: RankTurns, entries: dict[str, BoardEntry]) -> None:
        self._rank = rank
        self._turns = turns
        self._entries = entries

    def join(self, name: str, make: Callable[[], bytes]) -> bytes:
        self._turns.change(self._rank)
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = BoardEntry(make())
        entry.holders.add(self._rank)
        return entry.handle

    def claim(self, name: str) -> bool:
        entry = self._entries[name]
        if entry.ready is None and entry.filler is None:
            entry.filler = self._rank
        return entry.ready is None and entry.filler == self._rank

    def disclaim(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is not None and entry.filler == self._rank:
            entry.filler = None

    def set_ready(self, name: str) -> None:
        self._entries[name].ready = self.machine.current.now()
        self._turns.change(self._rank)

    def is_ready(self, name: str) -> bool:
        return self._ready(name) is not None

    def await_ready(self, name: str) -> bytes:
        self._turns.until(self._rank, lambda: self._ready(name) is not None)
        entry, ready = self._entries[name], self._ready(name)
        assert ready is not None
        entry.holders.add(self._rank)
        self.machine.wait(self.machine.current, ready)
        return entry.handle

    def withdraw(self, name: str, wait: bool) -> None:
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.ready = None
        try:
            self._turns.until(self._rank, lambda: not wait or entry.holders <= {self._rank})
        except PeerFailed:
            if not self._turns.failure:
                raise
        for moment in entry.left:
            self.machine.wait(self.machine.current, moment)

    def leave(self, name: str) -> bool:
        entry = self._entries.get(name)
        if entry is None:
            return True
        entry.holders.discard(self._rank)
        self.disclaim(name)
        entry.left.append(self.machine.current.now())
        if entry.holders:
            self._turns.change(self._rank)
            return False
        del self._entries[name]
        for moment in entry.left:
            self.machine.wait(self.machine.current, moment)
        return True

    def _ready(self, name: str) -> Moment | None:
        entry = self._entries.get(name)
        return None if entry is None else entry.ready
