"""A follower's process: carries out the leader's orders until it is told to leave."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import torch

from entracte.errors import EntracteError, PeerFailed
from entracte.parallel import Mesh

from .connections import RankConnections
from .failures import is_reason
from .member import Follows, SharedOrder
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
    Order,
    StepEnd,
)

logger = logging.getLogger(__name__)

ALIVE_SECONDS = 2.0

# Exit code of a process that ends so that others are freed of an exchange with it.
EXIT_CALLED_OFF = 3


def main() -> None:
    """Follow, in a process that a leader started. Arguments: descriptors of the two sockets."""
    ignore_signals()
    orders, reports = (Connection(int(word)) for word in sys.argv[1:3])
    Follower(orders, reports).run()


def ignore_signals() -> None:
    """Leave the terminal's signals to the leader."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Follower:
    """A rank other than the leader's; a `Member`.

    The process ends if the leader is gone, or if it would keep others waiting otherwise.
    """

    devices: tuple[torch.device, ...] = ()
    leads = False

    def __init__(self, orders: Connection, reports: Connection) -> None:
        self._orders = orders
        self._reports = reports
        self._sending = threading.Lock()
        self._steps = 0
        self.connections = 0
        self._stopped = False  # by agreement
        self._called_off: CallOff | None = None
        invitation = self._next_order()
        assert isinstance(invitation, Invitation)  # the first
        self.rank, self.size = invitation.rank, invitation.size
        self._device = device = torch.device(invitation.device)
        self._peers = RankConnections(Path(invitation.folder), self.rank, self.size, device)
        self._open_follower = invitation.open_follower
        log = [_LeadersLog(self._send)]
        logging.basicConfig(handlers=log, level=logging.WARNING, format="%(message)s", force=True)
        for loop in (self._listen, self._tell_alive):
            threading.Thread(target=loop, name=f"follower {loop.__name__}", daemon=True).start()

    def run(self) -> NoReturn:
        """Open what follows, and have it carry out orders until the leader says to leave."""
        try:
            opened = self._open_follower(self, self._device)
        except BaseException as error:  # panics of Rust libraries are not an Exception
            self._fail(error, ends=True)
        self._send(Joined())
        while not isinstance(order := self._next_order(), Leave):
            if isinstance(order, Assignment):  # else a word about what was called off
                self._carry_out(opened, order)
        opened.close()
        self._exit(0)  # without what Python and torch do at their end, which takes seconds

    @property
    def mesh(self) -> Mesh | None:
        return self._peers.mesh

    def restart(self) -> bool:
        return False

    @contextmanager
    def share(self, order: object) -> Iterator[SharedOrder]:  # noqa: ARG002
        yield SharedOrder()

    def agree(self, stop: bool) -> bool:  # noqa: ARG002
        word = self._next_order()
        assert isinstance(word, StepEnd)  # nothing else is sent meanwhile
        self._steps += 1
        self.check()  # or the word is not about the step
        self._stopped = word.stop
        return word.stop

    def exchange(self, value: object) -> list[object]:
        return self._peers.exchange(value, self.check)

    def check(self) -> None:
        if self._called_off is not None and self._called_off.connections == self.connections:
            raise PeerFailed(self._called_off.reason)

    def close(self) -> None:
        pass  # the leader ends the group

    def _carry_out(self, opened: Follows, order: Assignment) -> None:
        self.connections, self._stopped = order.connections, False
        try:
            self._peers.use(order.connections, self.check)
            self.check()
            report = opened.follow(order.order)
        except BaseException as error:  # of any kind: the leader is told
            if self._stopped:
                self._send(Carried(None))
                return
            self._fail(error, ends=False)
        else:
            self._send(Carried(report))
            return
        # After the error and its frames are gone.
        self._peers.abort()
        self._peers.close()

    def _fail(self, error: BaseException, ends: bool) -> None:
        likely = is_reason(error)
        try:
            self.check()
        except PeerFailed:
            likely = False
        if likely and not isinstance(error, EntracteError):
            logger.error("failed", exc_info=error)
        self._send(Failure(type(error).__name__, str(error), likely, ends))
        if ends:
            self._exit(EXIT_CALLED_OFF)

    def _exit(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _next_order(self) -> Order:
        try:
            order: Order = self._orders.recv()
        except (EOFError, OSError):
            os._exit(0)  # the leader is gone
        return order

    def _listen(self) -> None:
        while True:
            try:
                words: CallOff = self._reports.recv()
            except (EOFError, OSError):
                os._exit(0)  # the leader is gone, so the work is useless
            self._called_off = words
            if not self._peers.abort() and words.by_leader:
                self._exit(
                    EXIT_CALLED_OFF
                )  # the leader's connections stay for as long as its error's frames do

    def _tell_alive(self) -> None:
        pause = threading.Event()
        while not pause.wait(ALIVE_SECONDS):
            self._send(Alive(self._steps))

    def _send(self, report: FollowerReport) -> None:
        with self._sending:
            try:
                self._reports.send(report)
            except OSError:
                os._exit(0)  # the leader is gone


class _LeadersLog(logging.Handler):
    """Has the leader log what is logged here, with this rank's name."""

    def __init__(self, send: Callable[[FollowerReport], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(Logged(record.levelno, record.name, self.format(record)))
