"""What a backend knows of the other ranks of its group: one process and one device each, on one
machine.
"""

from typing import Protocol


class Peers(Protocol):
    """The ranks of a group, as one of them sees them. All do the same requests in the same order,
    and none begins one, or closes, before all have ended the last.

    rank: this one's number, from 0. size: how many there are.
    """

    rank: int
    size: int

    def exchange(self, value: object) -> list[object]:
        """Every rank's value, in the order of ranks.

        All ranks call it, in the same order; it is used only when backends are opened. value:
        small, and can be pickled. Raises PeerFailed, within a bounded time, where a rank does not
        answer.
        """

    def check(self) -> None:
        """Raise PeerFailed if any rank has failed or died, with its reason.

        Cheap, and for any thread: it is called again and again by whoever waits for a rank.
        """


class NoPeers:
    """A group of one."""

    rank = 0
    size = 1

    def exchange(self, value: object) -> list[object]:
        return [value]

    def check(self) -> None:
        pass
