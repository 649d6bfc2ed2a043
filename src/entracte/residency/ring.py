"""Slots: a few buffers through which blocks pass, each brought while earlier ones compute."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from .buffer import BlockWeights, Buffer


class SlotRing:
    """Fills slots ahead of their use, in the order of use.

    fill: makes a buffer hold a content, without waiting for it.
    """

    def __init__(self, slots: list[Buffer], fill: Callable[[Buffer, BlockWeights], None]) -> None:
        self.slots = slots
        self._fill = fill
        self._upcoming: Iterator[BlockWeights] = iter(())
        self._next: BlockWeights | None = None
        self._ahead: deque[tuple[BlockWeights, Buffer]] = deque()
        self._lent: Buffer | None = None
        self._oldest: deque[Buffer] = deque(slots)

    def expect(self, upcoming: Iterable[BlockWeights]) -> None:
        """Say which contents will be taken, in order; what was expected before is forgotten."""
        self._upcoming = iter(upcoming)
        self._ahead.clear()
        self._lent = None
        self._next = next(self._upcoming, None)

    def advance(self) -> None:
        """Fill every slot that is free with what comes next."""
        while self._next is not None and len(self._ahead) < len(self.slots):
            slot = self._slot_for(self._next)
            if slot is None:
                return
            if slot.content != self._next:
                self._fill(slot, self._next)
            self._ahead.append((self._next, slot))
            self._next = next(self._upcoming, None)

    def take(self, content: BlockWeights) -> Buffer:
        """The slot that holds the next content, lent until `give_back`."""
        if not self._ahead:
            self.advance()
        expected, slot = self._ahead.popleft()
        if expected != content:
            raise RuntimeError(f"{content} was taken where {expected} was to come")
        self._lent = slot
        return slot

    def give_back(self) -> None:
        """The slot last taken may be filled again, after what its release ordered."""
        if self._lent is not None:
            self._oldest.remove(self._lent)
            self._oldest.append(self._lent)
            self._lent = None

    def _slot_for(self, content: BlockWeights) -> Buffer | None:
        """The slot that holds the content already, or the free one that was used longest ago."""
        busy = [slot for _, slot in self._ahead]
        for slot in self.slots:
            if slot.content == content:
                return slot
        for slot in self._oldest:
            if slot is not self._lent and slot not in busy:
                return slot
        return None
