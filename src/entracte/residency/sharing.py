"""What the ranks of a group have in common: host buffers that one of them fills for all, and device
buffers that the others copy from.
"""

from collections.abc import Callable

from entracte.residency.backends.protocol import Backend, Event, HostMemory, Task

from .buffer_key import BlockWeights
from .recorder import ComponentRecorder


class SharedEntry:
    """A host buffer's entry on the board of the group, and its memory.

    share: whether this rank fills it; None: whoever needs it first does.
    """

    def __init__(self, backend: Backend, name: str, memory: HostMemory, share: bool | None) -> None:
        assert backend.board is not None
        self.name = name
        self._backend = backend
        self._board = backend.board
        self._memory = memory
        self._share = share
        self._pinned: bool | None = None  # unknown

    def pin(self, fresh: bool) -> bool:
        """Pin the memory if it is to be, and is not yet; returns whether it is.

        Memory that is filled is pinned much faster. fresh: nobody has filled it yet.
        """
        if self._pinned is None:
            self._pinned = self._memory.pinned and self._backend.pin(self._memory, fresh)
        return self._pinned

    def must_be_filled(self) -> bool:
        """Whether this rank has to fill it now; else another one does, or it is filled already."""
        if self._share is None:
            return self._board.claim(self.name)
        return self._share and not self._board.is_ready(self.name)

    def give_up(self) -> None:
        """Say that this rank has failed to fill it."""
        self._board.disclaim(self.name)

    def set_ready(self) -> None:
        """Say that it is filled."""
        self._board.set_ready(self.name)

    def wait(self) -> None:
        """Wait until it is filled; raises PeerFailed."""
        self._board.await_ready(self.name)


class AwaitedFill:
    """What another rank has yet to load into a shared buffer; see `PendingRead`."""

    def __init__(
        self, shared: SharedEntry, recorder: ComponentRecorder, content: BlockWeights
    ) -> None:
        self.content = content
        self._shared = shared
        self._recorder = recorder

    def wait(self) -> None:
        """Make the host wait until the other rank is done; raises PeerFailed."""
        with self._recorder.host_waits(self.content, "read"):
            self._shared.wait()

    def abandon(self) -> None:
        """Nothing is written here, so there is nothing to wait for."""


class PeerOffer:
    """A device buffer that other ranks may copy from, until it is withdrawn.

    name: of its entry on the board. content: what the buffer holds. handle: of its memory.
    """

    def __init__(self, backend: Backend, name: str, content: BlockWeights, handle: bytes) -> None:
        assert backend.board is not None
        self.content = content
        self._board = backend.board
        self._name = name
        self._task: Task | None = None
        self._backend = backend
        self._board.join(name, lambda: handle)

    def publish(self, written: Callable[[], Event | None]) -> None:
        """Make it ready once the buffer is written; for the reader thread, after all reads so far.

        written: the last write, or None if the host has waited for it; raises if there is none.
        """

        def tell() -> None:
            event = written()
            if event is not None:
                event.synchronize()
            self._board.set_ready(self._name)

        self._task = self._backend.read_ahead(tell)

    def withdraw(self, wait: bool) -> None:
        """Let no other rank copy from it any more; `wait`: until none does."""
        if self._task is not None:
            self._task.exception()
        self._board.withdraw(self._name, wait)
        self._board.leave(self._name)
