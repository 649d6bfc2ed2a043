"""Copies from the other devices of a group."""

from entracte.errors import ResidencyError
from entracte.residency.backends.protocol import Backend, Task

from .buffer import Buffer
from .buffer_key import BlockWeights, BufferKey
from .recorder import ComponentRecorder
from .sharing import PeerOffer


class PeerCopies:
    """The other ranks' device buffers that this one copies from, during a request.

    component: whose weights they hold.
    """

    def __init__(self, backend: Backend, component: str, recorder: ComponentRecorder) -> None:
        self._backend = backend
        self._component = component
        self._recorder = recorder
        self._open: dict[BlockWeights, Buffer] = {}
        self._leaving: Task | None = None

    def offer(self, buffer: Buffer, content: BlockWeights) -> None:
        """Let other ranks copy what one of this rank's buffers holds, or will hold once its pending
        read is done.
        """
        if buffer.offer is not None:
            if buffer.offer.content == content:
                return
            buffer.withdraw()
        offer = PeerOffer(self._backend, self._name(content), content, buffer.memory)
        buffer.offer = offer
        offer.publish(lambda: buffer.written(content))

    def get(self, content: BlockWeights) -> Buffer:
        """The buffer of another rank; waits until that offers it. Raises PeerFailed."""
        buffer = self._open.get(content)
        if buffer is None:
            board = self._backend.board
            if board is None:
                raise ResidencyError("devices of this system cannot copy from each other")
            if self._leaving is not None:
                self._leaving.result()
                self._leaving = None
            with self._recorder.host_waits(content, "copy"):
                memory = self._backend.open_peer(board.await_ready(self._name(content)))
            key = BufferKey("peer", "weights", content.unit)
            buffer = self._open[content] = Buffer(key, memory, self._recorder, pinned=True)
        return buffer

    def leave(self) -> None:
        """Let go of all buffers, once this rank's copies from them are done."""
        if not self._open:
            return
        board, left = self._backend.board, dict(self._open)
        self._open.clear()

        def let_go() -> None:
            try:
                for buffer in left.values():
                    buffer.wait_on_host()
            finally:
                for content, buffer in left.items():
                    self._backend.close_peer(buffer.memory)
                    if board is not None:
                        board.leave(self._name(content))

        self._leaving = self._backend.read_ahead(let_go)

    def close(self) -> None:
        """Wait until all buffers are let go of."""
        self.leave()
        if self._leaving is not None:
            self._leaving.exception()

    def _name(self, content: BlockWeights) -> str:
        return f"{self._component} {content}"
