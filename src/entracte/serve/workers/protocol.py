"""The runner: what a worker's process runs jobs with."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from entracte.errors import EntracteError

from .messages import Done, MemoryReport, PreviewImage, RunJob, Step

# The client's message when memory ran out.
MEMORY_WORDS = "The server ran out of memory. A smaller or shorter video takes less."

Report = Callable[[Step | MemoryReport | PreviewImage], None]


class WorkFailed(EntracteError):
    """A video cannot be made. code and message: for the client; detail: for the operator.

    fatal: the process can run no other one after it.
    """

    def __init__(self, code: str, message: str, detail: str = "", fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
        self.fatal = fatal


class Runner(Protocol):
    """Runs jobs, one at a time."""

    @property
    def device(self) -> str:
        """What it computes on."""

    def warm_up(self, report: Report) -> None:
        """Do now what would keep the first video waiting; raises EntracteError where it never can
        be made.
        """

    def run(self, job: RunJob, report: Report, should_stop: Callable[[], bool]) -> Done:
        """Make a video; raises WorkFailed, with the code `cancelled` where it was to stop."""

    def estimate(self, request: Mapping[str, Any]) -> float | None:
        """The seconds a video would take; from any thread, also while another is being made.

        Raises WorkFailed for a request that cannot be carried out.
        """

    def close(self) -> None:
        """Release all memory."""


# Opens a runner in the worker's process; raises EntracteError for wrong settings.
OpenRunner = Callable[[], Runner]
