"""What the reader thread is still to bring into a buffer."""

from collections.abc import Callable

from entracte.residency.backends.protocol import Backend

from .buffer_key import BlockWeights
from .recorder import ComponentRecorder, Work


class PendingRead:
    """A task of the reader thread that fills a buffer, until somebody has waited for it.

    content: what the buffer will hold. work: how it is filled, for the trace.
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
        self._task = backend.read_ahead(fill)

    def wait(self) -> None:
        """Make the host wait until the task is done; raises what it raised."""
        with self._recorder.host_waits(self.content, self._work):
            self._task.result()

    def abandon(self) -> None:
        """Make the host wait until the task is done; its result, or failure, is not wanted."""
        with self._recorder.host_waits(self.content, self._work):
            self._task.exception()
