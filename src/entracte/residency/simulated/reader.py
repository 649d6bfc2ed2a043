"""The reader thread of the simulated accelerator: it runs at once, but its work is its own."""

from collections.abc import Callable

from entracte.errors import EntracteError

from .machine import Machine
from .ordering import Moment


class SimulatedTask:
    """A task that has run, at its own simulated time."""

    def __init__(self, machine: Machine, end: Moment, failure: EntracteError | None) -> None:
        self._machine = machine
        self._end = end
        self._failure = failure

    def result(self) -> None:
        """The one wait that the host may make in a step: files are not the device's."""
        self._machine.wait(self._machine.current, self._end)
        if self._failure is not None:
            raise self._failure


def run_as_reader(machine: Machine, task: Callable[[], None]) -> SimulatedTask:
    """Run a task after what the reader and its caller did; `result` raises what users may see."""
    reader = machine.reader
    reader.join(machine.current.now())
    before, machine.current = machine.current, reader
    failure: EntracteError | None = None
    try:
        task()
    except EntracteError as error:
        failure = error
    finally:
        machine.current = before
    return SimulatedTask(machine, reader.now(), failure)
