"""The ends of steps, as the host sees them: a step behind what it gives a device."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from entracte.trace.trace import EndOfStep


@dataclass(frozen=True, slots=True)
class EnqueuedStep:
    """A step that a device may not have done yet. picture: there at its end."""

    number: int
    end: EndOfStep
    picture: Tensor | None


class StepEnds:
    """Tells of every step once it is done, while the device does the next one.

    So the device does not wait for the host between two steps. A CPU has done a step when it is
    enqueued, and nothing is late.

    tell: called with a step's number, and its preview if there is one.
    in_step: several devices are told of each step together. Then whether one of them has already
        done it must not change when it tells: the others could wait for it, and it for them.
    """

    def __init__(self, tell: Callable[[int, Tensor | None], None], in_step: bool = False) -> None:
        self._tell = tell
        self._in_step = in_step
        self._latest: EnqueuedStep | None = None

    def enqueued(self, number: int, end: EndOfStep, picture: Tensor | None) -> None:
        """Wait for the step before the one that is now enqueued."""
        self.wait()
        self._latest = EnqueuedStep(number, end, picture)
        if not self._in_step and end.passed():
            self.wait()

    def wait(self) -> None:
        """Wait for the last step that was enqueued."""
        step, self._latest = self._latest, None
        if step is not None:
            step.end.wait()
            self._tell(step.number, step.picture)
