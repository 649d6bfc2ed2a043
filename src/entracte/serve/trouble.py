"""What keeps a thread of the server from its work, and how it goes on."""

import threading
import time

from structlog.typing import FilteringBoundLogger

from .jobs.database import DatabaseError

# Waits before the next attempt, after so many that failed in a row.
BACK_OFF = (1.0, 2.0, 5.0, 10.0)

# The same failure is logged so often.
LOG_SECONDS = 60.0


class Trouble:
    """Failures in a row: logged when they begin, change and end, and now and then between.

    Read from any thread, told by one. words: what is wrong, None where all is well.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._failures = 0
        self._logged_at = 0.0
        self.words: str | None = None

    def failed(self, error: Exception) -> float:
        """Note a failure; the seconds to wait before the next attempt."""
        words = str(error) if isinstance(error, DatabaseError) else f"a {type(error).__name__}"
        now = time.monotonic()
        if words != self.words or now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            expected = isinstance(error, DatabaseError)
            self._log.error("failed", why=words, exc_info=None if expected else error)
        self.words = words
        self._failures += 1
        return BACK_OFF[min(self._failures, len(BACK_OFF)) - 1]

    def over(self) -> None:
        """The last attempt went well."""
        if self.words is not None:
            self._log.info("works again", after=self.words)
        self._failures, self.words = 0, None


class Loop(threading.Thread):
    """A thread that takes a turn every so many seconds, and survives whatever goes wrong in one."""

    def __init__(self, name: str, every_s: float, log: FilteringBoundLogger) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s = every_s
        self._stopping = threading.Event()
        self.trouble = Trouble(log.bind(thread=name))

    def turn(self) -> None:
        """One round of the work."""
        raise NotImplementedError

    def run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            try:
                self.turn()
            except Exception as error:  # whatever it is: the next turn may go well
                pause = max(self._every_s, self.trouble.failed(error))
            else:
                self.trouble.over()
                pause = self._every_s

    def stop(self) -> None:
        self._stopping.set()
