"""What the reader thread has yet to load into a buffer."""

from collections.abc import Callable
from typing import Protocol

from entracte.residency.backends.protocol import Backend

from .buffer_key import BlockWeights
from .recorder import ComponentRecorder, Work


class Pending(Protocol):
    """What a buffer will hold once others have loaded it: the reader thread, or another rank."""

    content: BlockWeights

    def wait(self) -> None:
        """Make the host wait until that is done; raises what it raised."""

    def abandon(self) -> None:
        """Make the host wait until nothing uses the buffer, ignoring any failure."""


class PendingRead:
    """A task of the reader thread that fills a buffer, from the files or from another buffer.

    content: what the buffer will hold, and the other one holds. work: for the trace.
    """

    def __init__(
        self,
        backend: Backend,
        recorder: ComponentRecorder,
        content: BlockWeights,
        work: Work,
        fill: Callable[[], None],
    ) -> None:
        self.content = content
        self._work = work
        self._recorder = recorder
        self._done = False
        self._task = backend.read_ahead(fill)

    def wait(self) -> None:
        """Make the host wait until the task is done; raises what it raised."""
        if self._done:  # it fills one buffer from another, and was waited for at the other
            return
        self._done = True
        with self._recorder.host_waits(self.content, self._work):
            self._task.result()

    def abandon(self) -> None:
        """Make the host wait until the task is done, ignoring its result or failure."""
        if self._done:
            return
        self._done = True
        with self._recorder.host_waits(self.content, self._work):
            self._task.exception()
