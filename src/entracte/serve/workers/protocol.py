"""The protocol of runners, which run jobs in a worker process."""

from collections.abc import Callable
from typing import Protocol

from entracte.errors import EntracteError
from entracte.request import Request

from .messages import Done, MemoryReport, PreviewImage, RunJob, Step

# The client's message after running out of memory.
MEMORY_WORDS = "The server ran out of memory. A smaller or shorter video takes less."

Report = Callable[[Step | MemoryReport | PreviewImage], None]


class WorkFailed(EntracteError):
    """A video cannot be made. code and message: for the client; detail: for the operator.

    fatal: the process cannot run another job.
    """

    def __init__(self, code: str, message: str, detail: str = "", fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail
        self.fatal = fatal


# Waits until a job's file is whole; raises WorkFailed.
Finish = Callable[[], Done]


class Runner(Protocol):
    """Runs jobs: one at a time on the device, while the file of an earlier one is being written."""

    @property
    def device(self) -> str:
        """The name of the device."""

    def warm_up(self, report: Report) -> None:
        """Do what would delay the first video; raises EntracteError if videos can never be made."""

    def run(self, job: RunJob, report: Report, should_stop: Callable[[], bool]) -> Finish:
        """Make a video, until only its file is left to write; the last stage reported is `mux`.

        What is returned is called in another thread, while the next job may run in this one. Both
        raise WorkFailed, with the code `cancelled` if `should_stop` said so.
        """

    def estimate(self, request: Request) -> float | None:
        """The seconds that a video would take. May be called from any thread, also during `run`.

        Raises WorkFailed for a request that cannot be carried out.
        """

    def close(self) -> None:
        """Release all memory."""


# Opens a runner in the worker's process; raises EntracteError for wrong settings.
OpenRunner = Callable[[], Runner]
