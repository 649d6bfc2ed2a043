"""What an engine knows of the group that it is in."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from entracte.parallel import Mesh


@dataclass(slots=True)
class SharedOrder:
    """What became of an order that ranks carried out together.

    reports: what every follower returned, in the order of ranks; empty before the end.
    """

    reports: list[object] = field(default_factory=list)


class Member(Protocol):
    """A process's place in its group.

    rank: its number, from 0; 0 leads. size: how many there are. devices: of all of them; empty
    where only each knows its own. leads: whether others carry out its orders.
    """

    rank: int
    size: int
    devices: tuple[torch.device, ...]
    leads: bool

    @property
    def connections(self) -> int:
        """The number of the connections that `mesh` exchanges by: with another, these are new."""

    @property
    def mesh(self) -> Mesh | None:
        """What ranks exchange tensors by; None where there is one rank."""

    def restart(self) -> bool:
        """Start a group again that has lost a process; returns whether it had.

        Then every rank opens its backend again. Raises PeerFailed if it cannot be started.
        """

    def share(self, order: object) -> AbstractContextManager[SharedOrder]:
        """Tell the followers to carry out an order, which this process carries out meanwhile.

        order: can be pickled. Within it, an error of one rank ends it on all: the leader raises
        that error, or PeerFailed with its words.
        """

    def agree(self, stop: bool) -> bool:
        """Whether all ranks stop after this step, as the leader says. stop: what it was asked.

        All ranks call it after the same steps. The leader does not wait. Raises PeerFailed if
        another rank failed.
        """

    def exchange(self, value: object) -> list[object]:
        """Every rank's value, in the order of ranks; for what opens, and needs all ranks to call it
        in the same order.

        value: small, and can be pickled. Raises PeerFailed where a rank does not answer.
        """

    def check(self) -> None:
        """Raise PeerFailed if any rank has failed or died, with its reason. Cheap."""

    def close(self) -> None:
        """End the group."""


class Alone:
    """A process that nobody controls: with one device, or with a mesh to others of its kind."""

    devices: tuple[torch.device, ...] = ()
    leads = False
    connections = 0

    def __init__(self, mesh: Mesh | None = None) -> None:
        self.mesh = mesh
        self.rank, self.size = (0, 1) if mesh is None else (mesh.everyone.rank, mesh.everyone.size)

    def restart(self) -> bool:
        return False

    @contextmanager
    def share(self, order: object) -> Iterator[SharedOrder]:  # noqa: ARG002
        yield SharedOrder()

    def agree(self, stop: bool) -> bool:
        return stop

    def exchange(self, value: object) -> list[object]:
        return [value]

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


ALONE = Alone()


class Follows(Protocol):
    """Carries out a leader's orders in a follower's process."""

    def follow(self, order: Any) -> object:
        """Carry out an order; returns a report, which can be pickled."""

    def close(self) -> None:
        """Release all memory."""


# Opens what follows, in its own process and on its own device; can be pickled.
OpenFollower = Callable[[Member, torch.device], Follows]
