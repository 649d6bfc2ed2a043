"""What the leader and a follower tell each other: plain data, pickled through two sockets.

By the first, the leader gives orders; the follower's main thread reads them. By the second, the
follower reports, and the leader calls an order off; threads of their own read it, whatever the main
threads are waiting for.
"""

from dataclasses import dataclass

from .member import OpenFollower


@dataclass(frozen=True, slots=True)
class Invitation:
    """The first order: become that rank. folder: where ranks find each other."""

    rank: int
    size: int
    device: str
    folder: str
    open_follower: OpenFollower


@dataclass(frozen=True, slots=True)
class Assignment:
    """Carry out an order, with the connections of that number."""

    connections: int
    order: object


@dataclass(frozen=True, slots=True)
class StepEnd:
    """The leader's word at the end of a step: go on, or stop here."""

    stop: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """Release all memory, and exit."""


Order = Invitation | Assignment | StepEnd | Leave


@dataclass(frozen=True, slots=True)
class CallOff:
    """What is done with the connections of that number failed on another rank.

    by_leader: on the leader itself.
    """

    connections: int
    reason: str
    by_leader: bool


@dataclass(frozen=True, slots=True)
class Alive:
    """The process runs. steps: how many it has done."""

    steps: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The follower is open, and takes orders."""


@dataclass(frozen=True, slots=True)
class Carried:
    """The order is carried out. report: see `Follows.follow`."""

    report: object


@dataclass(frozen=True, slots=True)
class Failure:
    """An order was not carried out. kind, message: of the error.

    likely: whether this is a reason, rather than a consequence of another rank's failure. ends:
    whether the process ends.
    """

    kind: str
    message: str
    likely: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class Logged:
    """A record of the follower's log, for the leader's. level, logger: as of `logging`.

    text: the message, with the traceback if there is one.
    """

    level: int
    logger: str
    text: str


FollowerReport = Alive | Joined | Carried | Failure | Logged
