"""Loading ahead of use: through slots, in the order of use, and spread evenly over a phase."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from entracte.residency.backends.protocol import Backend

from .buffer import Buffer
from .buffer_key import BlockWeights
from .loading import WeightLoader


class SlotRing:
    """Fills slots ahead of their use, in the order of use.

    load: enqueues loading a content into a buffer.
    """

    def __init__(self, slots: list[Buffer], load: Callable[[Buffer, BlockWeights], None]) -> None:
        self.slots = slots
        self._load = load
        self._upcoming: Iterator[BlockWeights] = iter(())
        self._next: BlockWeights | None = None
        self._ahead: deque[tuple[BlockWeights, Buffer]] = deque()
        self._lent: Buffer | None = None
        self._oldest: deque[Buffer] = deque(slots)

    def expect(self, upcoming: Iterable[BlockWeights]) -> None:
        """Set the contents that will be taken, in order, replacing those expected before."""
        self._upcoming = iter(upcoming)
        self._ahead.clear()
        self._lent = None
        self._next = next(self._upcoming, None)

    def advance(self) -> None:
        """Fill every free slot with what comes next."""
        while self._next is not None and len(self._ahead) < len(self.slots):
            slot = self._slot_for(self._next)
            if slot is None:
                return
            if slot.content != self._next:
                self._load(slot, self._next)
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
        """Allow the slot last taken to be filled again, after the work that its release ordered."""
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


class Throttle:
    """Fills buffers one by one as blocks are handed over.

    hand_overs: how many there are in the phase. A tenth of them is left for the last copies to end.
    """

    def __init__(
        self,
        backend: Backend,
        loader: WeightLoader,
        wanted: Sequence[tuple[Buffer, BlockWeights]],
        hand_overs: int,
    ) -> None:
        self._backend = backend
        self._loader = loader
        self._left = deque(wanted)
        self._done = 0
        self._each = len(wanted) / max(1.0, 0.9 * hand_overs)

    def keep(self) -> None:
        """Note a hand-over, and enqueue the copies that are due."""
        if not self._left:
            return
        before = int(self._done * self._each)
        self._done += 1
        due = min(int(self._done * self._each) - before, len(self._left))
        if due:
            # The host is ahead of the device; the copies should not be.
            self._backend.copies.wait(self._backend.compute.record())
        for _ in range(due):
            self._loader.load(*self._left.popleft())
