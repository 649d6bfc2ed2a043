"""The leader of a group: starts followers, gives orders, and ends on all what failed on one."""

import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch

from entracte.errors import EntracteError, PeerFailed
from entracte.parallel import Mesh

from .connections import RankConnections
from .failures import error_of, is_reason
from .follower import EXIT_CALLED_OFF
from .launched import launched_followers
from .member import OpenFollower, SharedOrder
from .messages import (
    Alive,
    Assignment,
    CallOff,
    Carried,
    Failure,
    FollowerReport,
    Invitation,
    Joined,
    Leave,
    Logged,
    StepEnd,
)
from .processes import FollowerProcess, start_child

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0

# opening: not yet open. busy: carries out an order. ending: said so, or was told to. gone: no
# process.
FollowerState = Literal["opening", "idle", "busy", "ending", "gone"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the leader waits, in seconds that it was running itself.

    silence: for any sign of life; a process sends one every two seconds. opening: for the first.
    stalled: for any rank to finish a step. freed: for all to come out of what was called off.
    leave: for processes to end.
    """

    silence: float = 30.0
    opening: float = 300.0
    stalled: float = 1200.0
    freed: float = 30.0
    leave: float = 10.0


@dataclass(slots=True)
class Following:
    """A follower as the leader knows it. who: for messages. quiet: seconds since its last report.

    steps: how many it has done. report: of the last order. killed: why the leader killed it.
    """

    process: FollowerProcess
    who: str
    state: FollowerState = "opening"
    quiet: float = 0.0
    steps: int = 0
    report: object = None
    killed: str = ""


class Leader:
    """Rank 0, in the process of the caller; a `Member`, used by one thread at a time.

    devices: of every rank, in order; this process has the first. open_follower: opens what follows,
    in its process. processes: of the followers, where they are not to be started.
    """

    rank = 0

    def __init__(
        self,
        devices: Sequence[torch.device],
        open_follower: OpenFollower,
        patience: Patience = Patience(),
        processes: Sequence[FollowerProcess] = (),
    ) -> None:
        self.size = len(devices)
        self.leads = self.size > 1
        self.devices = tuple(devices)
        self._open_follower = open_follower
        self._patience = patience
        self._processes = list(processes)
        self._closed = threading.Event()
        self._changed = threading.Condition()  # guards what follows
        self._followers: list[Following] = []
        self.connections = 0  # 0 while ranks open
        self._called_off = False  # what is done with them
        self._stopped = False  # by agreement
        self._reasons: list[tuple[EntracteError, bool]] = []  # and whether each is likely
        self._still = 0.0  # seconds since any rank finished a step
        self._steps = 0
        self._start()
        threading.Thread(target=self._watch, name="group watch", daemon=True).start()

    @property
    def mesh(self) -> Mesh | None:
        return self._peers.mesh

    @classmethod
    @contextmanager
    def opening(
        cls, devices: Sequence[torch.device], open_follower: OpenFollower
    ) -> Iterator[Self]:
        """Start a group, or lead the processes that torchrun started; followers open meanwhile.

        At the end of the block all are open. If it raises, or one of them, there is no group.
        """
        leader = cls(devices, open_follower, processes=launched_followers(len(devices)))
        try:
            yield leader
            leader.wait_until_open()
        except BaseException:
            leader.close()
            raise

    def wait_until_open(self) -> None:
        """Raises what kept a follower from opening."""
        with self._changed:
            self._wait_until_idle()

    def restart(self) -> bool:
        with self._changed:
            if all(each.state not in ("ending", "gone") for each in self._followers):
                return False
        logger.warning("a rank is gone; all are started again")
        self._end(patience=0.0)
        self._start()
        return True

    @contextmanager
    def share(self, order: object) -> Iterator[SharedOrder]:
        self._begin(order)
        shared = SharedOrder()
        try:
            self._peers.use(self.connections, self.check)
            yield shared
        except BaseException as error:  # of any kind: others wait for this rank
            if self._stopped:  # they have stopped after the same step
                self._collect()
                raise
            reason = self._settle(error)
            if reason is None:
                raise
            raise reason from error
        shared.reports = self._collect()

    def agree(self, stop: bool) -> bool:
        self.check()
        with self._changed:
            self._steps += 1
            self._still = 0.0
            self._stopped = stop
        for each in self._followers:
            each.process.order(StepEnd(stop))
        return stop

    def exchange(self, value: object) -> list[object]:
        return self._peers.exchange(value, self.check)

    def check(self) -> None:
        with self._changed:
            if self._called_off:
                raise PeerFailed(str(self._likeliest()))

    def close(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._end(self._patience.leave)

    def _start(self) -> None:
        """Start every follower; they open while this process does."""
        self._folder = tempfile.TemporaryDirectory(
            prefix="entracte-group-", ignore_cleanup_errors=True
        )
        folder, self.connections, self._called_off, self._reasons = self._folder.name, 0, False, []
        self._peers = RankConnections(Path(folder), 0, self.size, self.devices[0])
        processes = self._processes or [start_child() for _ in self.devices[1:]]
        self._processes = []  # torchrun's, if any, are not started again
        self._followers = [
            Following(process, f"rank {rank} ({device})")
            for rank, (process, device) in enumerate(
                zip(processes, self.devices[1:], strict=True), start=1
            )
        ]
        for rank, each in enumerate(self._followers, start=1):
            invited = Invitation(
                rank, self.size, str(self.devices[rank]), folder, self._open_follower
            )
            each.process.order(invited)
            threading.Thread(
                target=self._listen, args=(each,), name=f"group {each.who}", daemon=True
            ).start()

    def _begin(self, order: object) -> None:
        """Give an order to all, once all are open."""
        with self._changed:
            self._wait_until_idle()
            if self._called_off or not self.connections:
                self.connections += 1  # connections that are as new
            self._called_off, self._stopped, self._reasons, self._still = False, False, [], 0.0
            for each in self._followers:
                each.state, each.report = "busy", None
        for each in self._followers:
            each.process.order(Assignment(self.connections, order))

    def _wait_until_idle(self) -> None:
        """Raises why a rank did not open, or PeerFailed if it is gone."""
        self._changed.wait_for(lambda: not self._any("opening", "busy", "ending"))
        if self._any("gone"):
            raise self._likeliest() or PeerFailed("a rank of the group is gone")

    def _collect(self) -> list[object]:
        """What followers report, once all have; what fails now concerns later orders only."""
        with self._changed:
            self._changed.wait_for(lambda: not self._any("busy", "ending"))
            if self._reasons:
                logger.warning("after the end of a request, %s", self._likeliest())
            return [each.report for each in self._followers]

    def _settle(self, error: BaseException) -> EntracteError | None:
        """End on all ranks what failed on this one, or failed here because it did on another.

        Returns the reason; None where it is this rank's own error.
        """
        with self._changed:
            is_own = not self._called_off and is_reason(error)
        words = f"rank 0 ({self.devices[0]}) failed: {type(error).__name__}: {error}"
        self._call_off(words, by_leader=is_own)
        with self._changed:
            self._changed.wait_for(lambda: not self._any("busy", "ending"), self._patience.freed)
            for each in self._followers:
                if each.state in ("busy", "ending"):
                    self._kill(each, "did not stop")
            self._changed.wait_for(lambda: not self._any("busy", "ending"), self._patience.leave)
            if is_own or not isinstance(error, Exception):
                return None
            found = self._likeliest()
            likely = any(is_likely for _, is_likely in self._reasons)
            return None if is_reason(error) and not likely else found

    def _call_off(self, reason: str, by_leader: bool = False) -> None:
        """Have all ranks fail at what is being done, from any thread."""
        with self._changed:
            if self._called_off:
                return
            self._called_off = True
            for each in self._followers:
                if each.state in ("opening", "busy"):
                    each.process.call_off(CallOff(self.connections, reason, by_leader))
                    each.process.order(StepEnd(stop=True))
        self._peers.abort()

    def _likeliest(self) -> EntracteError | None:
        """Why the current order failed."""
        return next(
            (
                error
                for wanted in (True, False)
                for error, likely in self._reasons
                if likely == wanted
            ),
            None,
        )

    def _all_gone(self) -> bool:
        return all(each.state == "gone" for each in self._followers)

    def _any(self, *states: FollowerState) -> bool:
        return any(each.state in states for each in self._followers)

    def _listen(self, follower: Following) -> None:
        """Receive a follower's reports until it is gone."""
        try:
            while True:
                self._note(follower, follower.process.reports.recv())
        except (EOFError, OSError):
            self._gone(follower)

    def _note(self, follower: Following, report: FollowerReport) -> None:
        with self._changed:
            follower.quiet = 0.0
            match report:
                case Alive(steps) if steps != follower.steps:
                    follower.steps, self._still = steps, 0.0
                case Joined():
                    follower.state = "idle"
                case Carried(made):
                    follower.state, follower.report = "idle", made
                case Failure():
                    follower.state = "ending" if report.ends else "idle"
                    self._reasons.append((error_of(follower.who, report), report.likely))
            self._changed.notify_all()
        if isinstance(report, Logged):
            told = logging.getLogger(report.logger)
            told.log(report.level, "%s: %s", follower.who, report.text)
        if isinstance(report, Failure):
            self._call_off(f"{follower.who} failed: {report.message}")

    def _gone(self, follower: Following) -> None:
        code, how = follower.process.how_it_ended()
        with self._changed:
            was, follower.state = follower.state, "gone"
            told = self._called_off and code in (0, EXIT_CALLED_OFF)
            lost = was in ("opening", "busy") and not told
            words = follower.killed or how
            if lost:
                self._reasons.append((PeerFailed(f"{follower.who} {words}"), True))
            self._changed.notify_all()
        if lost:
            self._call_off(f"{follower.who} {words}")

    def _watch(self) -> None:
        """Kill followers that do not answer or go on. Ticks are counted, not read from a clock, so
        that a machine that slept has lost nothing.
        """
        patience = self._patience
        while not self._closed.wait(TICK_SECONDS):
            with self._changed:
                self._still += TICK_SECONDS
                for each in self._followers:
                    each.quiet += TICK_SECONDS
                    limit = patience.opening if each.state == "opening" else patience.silence
                    if each.state != "gone" and each.quiet > limit:
                        self._kill(each, f"has not answered for {limit:g} s")
                if self._any("busy") and self._still > patience.stalled:
                    fewest = min(each.steps for each in self._followers)
                    for each in self._followers:
                        if each.state == "busy" and each.steps == fewest:
                            self._kill(each, f"has not gone on for {patience.stalled:g} s")

    def _kill(self, follower: Following, why: str) -> None:
        if not follower.killed:
            follower.killed = f"{why} and was ended"
        follower.process.kill()

    def _end(self, patience: float) -> None:
        """End all followers."""
        for each in self._followers:
            each.process.order(Leave())
        with self._changed:
            self._changed.wait_for(self._all_gone, patience)
            for each in self._followers:
                if each.state != "gone":
                    self._kill(each, "did not leave")
            self._changed.wait_for(self._all_gone, self._patience.leave)
        for each in self._followers:
            each.process.close()
        self._peers.abort()
        self._folder.cleanup()
