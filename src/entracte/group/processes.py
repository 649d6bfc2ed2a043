"""Processes of followers, as the leader has them: children of its own, or torchrun's."""

import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Lock

from .messages import CallOff, Order

# Not by multiprocessing: it runs the caller's main module again, and daemons may not use it.
PROGRAM = """
import sys
sys.path[:] = sys.argv[3:]
from entracte.imports import quick_imports
with quick_imports():
    from entracte.group.follower import main
main()
"""

# How long the system may take to end a process that was killed.
KILL_SECONDS = 5.0


class FollowerProcess:
    """A follower's process. orders, reports: the leader's ends of the two sockets.

    child: the process, where it is the leader's own.
    """

    def __init__(
        self,
        orders: Connection,
        reports: Connection,
        pid: int,
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.reports = reports
        self.pid = pid
        self._orders = orders
        self._child = child
        self._sending = Lock()

    def order(self, order: Order) -> None:
        """Send an order, from any thread. That a process has died is seen at its reports."""
        with self._sending, suppress(OSError):
            self._orders.send(order)

    def call_off(self, words: CallOff) -> None:
        """Have it fail at once."""
        with self._sending, suppress(OSError):
            self.reports.send(words)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def how_it_ended(self) -> tuple[int | None, str]:
        """Its exit code, if known, and a description, once its sockets are closed."""
        if self._child is None:
            return None, "ended"
        try:
            code = self._child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            return None, "does not answer"
        if code < 0:
            names = {each.value: each.name for each in signal.Signals}
            return code, f"was killed by {names.get(-code, f'signal {-code}')}"
        return code, f"ended with exit code {code}"

    def close(self) -> None:
        """Close the sockets, which ends the process if it still runs."""
        self._orders.close()
        self.reports.close()


def start_child() -> FollowerProcess:
    """Start a follower's process, with the environment of this one."""
    (orders, theirs), (reports, reporting) = multiprocessing.Pipe(), multiprocessing.Pipe()
    descriptors = theirs.fileno(), reporting.fileno()
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, descriptors), *sys.path],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
    )
    theirs.close()  # else we would never see their end
    reporting.close()
    return FollowerProcess(orders, reports, child.pid, child)
