"""Where the ranks of a group put up what they share, by name."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .peers import Peers

if TYPE_CHECKING:
    from .shared import SharedMemory


class Board(Protocol):
    """Entries by name: who holds each, whether it is ready, and a handle to open it with.

    An entry exists while a rank holds it, and is filled once, by one rank. What a rank did before
    it made an entry ready has happened for whoever found it ready; what it did before it left one,
    for whoever withdrew it. For any thread of a rank.
    """

    def join(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Hold an entry; returns its handle. The first who asks makes it: up to 512 bytes."""

    def claim(self, name: str) -> bool:
        """Whether this rank is to fill an entry that it holds: the first who asks is, until it
        disclaims it, and none where it is filled.
        """

    def disclaim(self, name: str) -> None:
        """Leave the filling of an entry to whoever claims it next."""

    def set_ready(self, name: str) -> None:
        """Say that an entry that this rank holds is filled."""

    def is_ready(self, name: str) -> bool:
        """Whether an entry exists and is filled."""

    def await_ready(self, name: str) -> bytes:
        """Wait until an entry is ready, and hold it; returns its handle.

        Raises PeerFailed if a rank fails, or nothing becomes ready for long.
        """

    def withdraw(self, name: str, wait: bool) -> None:
        """Take back that an entry is ready; `wait`: until no other rank holds it.

        Where the group has failed it waits for no one: nothing that the others make will be used.
        Raises PeerFailed if it waits for long.
        """

    def leave(self, name: str) -> bool:
        """Hold an entry no more; returns whether nobody does."""


def open_shared_memory(peers: Peers) -> "SharedMemory | None":
    """The shared memory of a group, opened by all of its ranks now; None for a group of one, where
    ranks only exchange tensors, and where the system has none. Raises PeerFailed where one cannot
    open it.
    """
    if peers.size == 1 or sys.platform != "linux":
        return None
    from .shared import SharedMemory

    return SharedMemory.open(peers)
