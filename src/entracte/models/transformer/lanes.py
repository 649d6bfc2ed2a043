"""Where a block's streams are computed: in turn, or audio beside video."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Lanes(Protocol):
    """Two queues of work. What one of them reads of the other's has to wait for it."""

    def fork(self) -> None:
        """Audio may go on from here."""

    def audio(self) -> AbstractContextManager[object]:
        """What is called within it is audio's."""

    def join(self) -> None:
        """What follows comes after all of audio so far."""


class InTurn:
    """One queue, in the order of calls."""

    def fork(self) -> None:
        pass

    def audio(self) -> AbstractContextManager[object]:
        return nullcontext()

    def join(self) -> None:
        pass


IN_TURN = InTurn()


def meet(lanes: Lanes) -> None:
    """What follows in both lanes comes after all so far in both."""
    lanes.join()
    lanes.fork()
