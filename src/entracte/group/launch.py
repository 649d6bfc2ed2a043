"""Starting followers: child processes of the leader."""

import multiprocessing
import signal
import subprocess
import sys
from contextlib import suppress
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
    """A follower's process, and the leader's ends of the two sockets."""

    def __init__(self) -> None:
        (self._orders, theirs), (self.reports, reporting) = (
            multiprocessing.Pipe(),
            multiprocessing.Pipe(),
        )
        descriptors = theirs.fileno(), reporting.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, descriptors), *sys.path],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()  # else we would never see their end
        reporting.close()
        self._sending = Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, order: Order) -> None:
        """Send an order, from any thread. That a process has died is seen at its reports."""
        with self._sending, suppress(OSError):
            self._orders.send(order)

    def call_off(self, words: CallOff) -> None:
        """Have it fail at once."""
        with self._sending, suppress(OSError):
            self.reports.send(words)

    def kill(self) -> None:
        self._process.kill()

    def how_it_ended(self) -> tuple[int | None, str]:
        """Its exit code and a description, once its sockets are closed."""
        try:
            code = self._process.wait(KILL_SECONDS)
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
