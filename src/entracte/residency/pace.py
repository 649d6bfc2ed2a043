"""Copies spread evenly over a phase, so that they do not slow it and are done at its end."""

from collections import deque
from collections.abc import Sequence

from entracte.residency.backends.protocol import Backend

from .buffer import BlockWeights, Buffer
from .fill import Filler


class Throttle:
    """Fills buffers one by one while blocks change hands.

    hand_overs: how often they do in the phase. A tenth of them is left for the last copies to end.
    """

    def __init__(
        self,
        backend: Backend,
        filler: Filler,
        wanted: Sequence[tuple[Buffer, BlockWeights]],
        hand_overs: int,
    ) -> None:
        self._backend = backend
        self._filler = filler
        self._left = deque(wanted)
        self._done = 0
        self._each = len(wanted) / max(1.0, 0.9 * hand_overs)

    def keep(self) -> None:
        """A block was handed over: begin the copies that are due."""
        if not self._left:
            return
        before = int(self._done * self._each)
        self._done += 1
        due = min(int(self._done * self._each) - before, len(self._left))
        if due:
            # The host is ahead of the device; the copies should not be.
            self._backend.copies.wait(self._backend.compute.record())
        for _ in range(due):
            self._filler.fill(*self._left.popleft())
