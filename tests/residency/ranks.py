"""Ranks for tests: threads, or processes, each with its own backend of one group."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from entracte.errors import PeerFailed

T = TypeVar("T")


class Meeting:
    """Where the ranks of one process meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.told: list[object] = [None] * size
        self.barrier = threading.Barrier(size, timeout=60)
        self.failure = ""

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.barrier.abort()


class ThreadPeers:
    """One rank's view of the others, which are threads."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.rank = rank
        self.size = meeting.size
        self.meeting = meeting

    def exchange(self, value: object) -> list[object]:
        meeting = self.meeting
        meeting.told[self.rank] = value
        try:
            meeting.barrier.wait()
            told = list(meeting.told)
            meeting.barrier.wait()
        except threading.BrokenBarrierError:
            raise PeerFailed(meeting.failure) from None
        return told

    def check(self) -> None:
        if self.meeting.failure:
            raise PeerFailed(self.meeting.failure)


def as_ranks(size: int, work: Callable[[ThreadPeers], T]) -> list[T]:
    """What every rank returns; a failure of one ends all, and is raised."""
    meeting = Meeting(size)

    def run(rank: int) -> T:
        try:
            return work(ThreadPeers(meeting, rank))
        except BaseException as error:
            meeting.fail(f"rank {rank}: {error}")
            raise

    with ThreadPoolExecutor(size) as pool:
        tasks = [pool.submit(run, rank) for rank in range(size)]
        failures = [error for each in tasks if (error := each.exception()) is not None]
        # The first cause, rather than what the others made of it.
        for error in sorted(failures, key=lambda each: isinstance(each, PeerFailed)):
            raise error
        return [each.result() for each in tasks]
