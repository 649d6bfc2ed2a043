"""Copies from the other devices of a group."""

from dataclasses import dataclass

from torch import Tensor

from entracte.errors import ResidencyError
from entracte.residency.backends.board import Board
from entracte.residency.backends.protocol import Backend, Task

from .buffer import Buffer
from .buffer_key import BlockWeights, BufferKey
from .recorder import ComponentRecorder
from .sharing import PeerOffer


@dataclass(slots=True)
class _Mapped:
    """Memory of another rank. content: what was last copied from it."""

    memory: Tensor
    content: BlockWeights


class PeerCopies:
    """The other ranks' device buffers that this one copies from, and its own that they copy.

    A rank holds another's buffer during a request, and its owner waits for that before it writes
    it. Its memory stays mapped until the plan changes, since mapping takes milliseconds; the owner
    waits for that before it frees it.

    component: whose weights they hold.
    """

    def __init__(self, backend: Backend, component: str, recorder: ComponentRecorder) -> None:
        self._backend = backend
        self._component = component
        self._recorder = recorder
        self._exported: dict[BufferKey, bytes] = {}
        self._mapped: dict[bytes, _Mapped] = {}  # by handle
        self._held: dict[BlockWeights, Buffer] = {}
        self._leaving: Task | None = None

    def offer(self, buffer: Buffer, content: BlockWeights) -> None:
        """Let other ranks copy what one of this rank's buffers holds, or will hold once its pending
        read is done.
        """
        if buffer.offer is not None:
            if buffer.offer.content == content:
                return
            buffer.withdraw()
        handle = self._exported.get(buffer.key)
        if handle is None:
            handle = self._exported[buffer.key] = self._backend.export(buffer.memory)
            self._board.join(_of_memory(handle), bytes)
        buffer.offer = PeerOffer(self._backend, self._of(content), content, handle)
        buffer.offer.publish(lambda: buffer.written(content))

    def take_back(self, buffer: Buffer, wait: bool) -> None:
        """Let no rank use a buffer whose memory is about to be freed; `wait`: until none does."""
        buffer.withdraw(wait)
        handle = self._exported.pop(buffer.key, None)
        if handle is not None:
            self._board.withdraw(_of_memory(handle), wait)
            self._board.leave(_of_memory(handle))

    @property
    def rows(self) -> list[tuple[BlockWeights, int]]:
        """What other ranks hold of what this one copies, with its bytes."""
        return [(each.content, each.memory.nbytes) for each in self._mapped.values()]

    def get(self, content: BlockWeights, rank: int) -> Buffer:
        """The buffer of another rank; waits until that offers it. Raises PeerFailed."""
        buffer = self._held.get(content)
        if buffer is None:
            self._join()
            with self._recorder.host_waits(content, "copy"):
                handle = self._board.await_ready(self._of(content))
            mapped = self._mapped.get(handle)
            if mapped is None:
                self._board.join(_of_memory(handle), bytes)
                mapped = _Mapped(self._backend.open_peer(handle), content)
                self._mapped[handle] = mapped
            mapped.content = content
            key = BufferKey("peer", "weights", content.unit, rank)
            buffer = self._held[content] = Buffer(key, mapped.memory, self._recorder, pinned=True)
        return buffer

    def leave(self) -> None:
        """Hold no buffer any more, once this rank's copies from them are done."""
        if not self._held:
            return
        held, self._held = self._held, {}

        def let_go() -> None:
            try:
                for buffer in held.values():
                    buffer.wait_on_host()
            finally:
                for content in held:
                    self._board.leave(self._of(content))

        self._join()
        self._leaving = self._backend.read_ahead(let_go)

    def unmap(self) -> None:
        """Let go of all memory of other ranks."""
        self.leave()
        self._join()
        for handle, mapped in self._mapped.items():
            self._backend.close_peer(mapped.memory)
            self._board.leave(_of_memory(handle))
        self._mapped.clear()

    @property
    def _board(self) -> Board:
        board = self._backend.board
        if board is None:
            raise ResidencyError("the devices of this group cannot copy from each other")
        return board

    def _join(self) -> None:
        """Wait until what was held earlier is let go of."""
        if self._leaving is not None:
            self._leaving.exception()
            self._leaving = None

    def _of(self, content: BlockWeights) -> str:
        return f"{self._component} {content}"


def _of_memory(handle: bytes) -> str:
    """The name of the entry that every rank holds that has some memory mapped, or owns it."""
    return f"memory {handle.hex()}"
