"""Buffers that the ranks of a group have in common: one rank fills each, for all."""

from entracte.residency.backends.board import Board

from .buffer_key import BlockWeights
from .recorder import ComponentRecorder


class SharedEntry:
    """A host buffer's entry on the board of the group. mine: whether this rank fills it."""

    def __init__(self, board: Board, name: str, mine: bool) -> None:
        self.name = name
        self._board = board
        self._mine = mine

    @property
    def must_be_filled(self) -> bool:
        """Whether this rank has to fill it now; else another one does, or it is filled already."""
        return self._mine and not self._board.is_ready(self.name)

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
