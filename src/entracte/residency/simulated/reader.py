"""The reader thread of the simulated accelerator: runs at once, as its own participant."""

from collections.abc import Callable

from .machine import Machine
from .ordering import Moment
from .races import RaceError, UnjoinedTask


class SimulatedTask:
    """A task that has run, at its own simulated time."""

    def __init__(self, machine: Machine, end: Moment, failure: Exception | None) -> None:
        self._machine = machine
        self._end = end
        self._failure = failure

    def result(self) -> None:
        """The one wait that the host may make in a step: files are not the device's."""
        failure = self.exception()
        if failure is not None:
            raise failure

    def exception(self) -> Exception | None:
        """The same wait; returns what `result` would raise. Not for a task: it would wait forever
        for one that is behind it.
        """
        if self._machine.current is self._machine.reader:
            raise UnjoinedTask("a task waits for a task, which the host must do before")
        self._machine.wait(self._machine.current, self._end)
        return self._failure


def run_as_reader(machine: Machine, task: Callable[[], None]) -> SimulatedTask:
    """Run a task after what the reader and its caller did; keeps failures, but raises RaceError."""
    reader = machine.reader
    reader.join(machine.current.now())
    reader.tick()
    before, machine.current = machine.current, reader
    failure: Exception | None = None
    try:
        task()
    except RaceError:
        raise
    except Exception as error:  # of any kind: a thread's failure is raised by its result
        failure = error
    finally:
        machine.current = before
    return SimulatedTask(machine, reader.now(), failure)
