"""What a worker's process does its work with."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from entracte.errors import EntracteError

from .messages import Done, Memory, Preview, Step, Work

# What a client is told where memory ran out.
MEMORY_WORDS = "The server ran out of memory. A smaller or shorter video takes less."

Tell = Callable[[Step | Memory | Preview], None]


class WorkFailed(EntracteError):
    """A video cannot be made. code and message: for the client; detail: for the operator.

    fatal: the process can make no other one after it.
    """

    def __init__(self, code: str, message: str, detail: str = "", fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
        self.fatal = fatal


class Maker(Protocol):
    """Makes videos, one at a time."""

    @property
    def device(self) -> str:
        """What it computes on."""

    def warm_up(self, tell: Tell) -> None:
        """Do now what would keep the first video waiting; raises EntracteError where it never can
        be made.
        """

    def make(self, work: Work, tell: Tell, should_stop: Callable[[], bool]) -> Done:
        """Make a video; raises WorkFailed, with the code `cancelled` where it was to stop."""

    def estimate(self, request: Mapping[str, Any]) -> float | None:
        """The seconds a video would take; from any thread, also while another is being made.

        Raises WorkFailed for a request that cannot be carried out.
        """

    def close(self) -> None:
        """Give all memory back."""


# Opens a maker in the worker's process; raises EntracteError where it is told something wrong.
OpenMaker = Callable[[], Maker]
