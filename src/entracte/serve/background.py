"""Background threads of the service: database probe and housekeeping, which survive failures."""

import threading
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from .data_folder import DataFolderError
from .events import EventBus, ServerEvent
from .files import Files
from .jobs.failures import DatabaseError
from .jobs.job import Job
from .jobs.store import JobStore

# Seconds before the next attempt, by the number that failed in a row.
BACK_OFF = (1.0, 2.0, 5.0, 10.0)

# How often the same failure is logged.
LOG_SECONDS = 60.0

PROBE_SECONDS = 2.0
HOUSEKEEPING_SECONDS = 60.0
REAPING_SECONDS = 3.0
SWEEPING_SECONDS = 600.0

# How often files without a video are looked for while others may be writing; these are as old at
# least, since a video is submitted only after its files.
ORPHAN_SECONDS = 24 * 3600.0


class Trouble:
    """Failures in a row, logged when they begin, change and end, and at intervals in between.

    Read from any thread, set by one. words: what is wrong; None if nothing is.
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
        """Note that an attempt succeeded."""
        if self.words is not None:
            self._log.info("works again", after=self.words)
        self._failures, self.words = 0, None


class Loop(threading.Thread):
    """A thread that takes a turn at an interval, and survives errors in one."""

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
            except Exception as error:  # of any kind: the next turn may succeed
                pause = max(self._every_s, self.trouble.failed(error))
            else:
                self.trouble.over()
                pause = self._every_s

    def stop(self) -> None:
        self._stopping.set()


class Probe(Loop):
    """Reads the database at intervals, so that `/health` need not."""

    def __init__(self, store: JobStore, log: FilteringBoundLogger) -> None:
        super().__init__("probe", PROBE_SECONDS, log)
        self._store = store

    def turn(self) -> None:
        self._store.running()


class Reaper(Loop):
    """Takes up again what workers had that are gone, on machines that may be gone too.

    recovered: called with every such job. lease_s: how long a worker's claim lasts without a
    heartbeat. A database that was away lets all leases expire, so the living get as long to renew
    theirs once it is back.
    """

    def __init__(
        self,
        store: JobStore,
        recovered: Callable[[Job], None],
        lease_s: float,
        log: FilteringBoundLogger,
    ) -> None:
        super().__init__("reaper", REAPING_SECONDS, log)
        self._store = store
        self._recovered = recovered
        self._lease_s = lease_s
        self._reached_since = time.monotonic()

    def turn(self) -> None:
        """Recover jobs whose leases are over."""
        try:
            if time.monotonic() - self._reached_since < self._lease_s:
                self._store.running()  # whether it can be reached
                return
            for job in self._store.recover_expired():
                self._recovered(job)
        except DatabaseError:
            self._reached_since = time.monotonic()
            raise


class Sweeping(Loop):
    """Removes this machine's copies of files that nobody needs any more."""

    def __init__(self, files: Files, log: FilteringBoundLogger) -> None:
        super().__init__("sweeping", SWEEPING_SECONDS, log)
        self._files = files

    def turn(self) -> None:
        """Remove old copies."""
        self._files.sweep_copies()


class Housekeeping(Loop):
    """Deletes videos that are too old or too large together, and files without a video.

    keep_bytes: how much all videos may take; None: no limit. orphans: whether files may be left by
    others than this server, which removes its own when it starts.
    """

    def __init__(
        self,
        store: JobStore,
        files: Files,
        events: EventBus,
        log: FilteringBoundLogger,
        keep_bytes: int | None,
        orphans: bool = False,
    ) -> None:
        super().__init__("housekeeping", HOUSEKEEPING_SECONDS, log)
        self._store = store
        self._files = files
        self._events = events
        self._log = log
        self._keep_bytes = keep_bytes
        self._orphans = orphans
        self._swept_at = -ORPHAN_SECONDS

    def turn(self) -> None:
        """Delete what has expired."""
        for job in self._store.expire(self._keep_bytes):
            try:
                self._files.remove(job.id)
            except DataFolderError as error:  # the next start removes what is left
                self._log.error("files not removed", video=job.id, why=str(error))
            self._events.publish(ServerEvent("deleted", job.id, job.owner))
            self._log.info("video expired", video=job.id)
        if self._orphans and time.monotonic() - self._swept_at > ORPHAN_SECONDS:
            self._swept_at = time.monotonic()
            removed = self._files.sweep(self._store.known(failed=False), ORPHAN_SECONDS)
            self._log.info("files without a video removed", folders=removed)
