"""Housekeeping: what is too old, or too much, goes."""

from structlog.typing import FilteringBoundLogger

from .data_folder import DataFolder, DataFolderError
from .events import EventBus, ServerEvent
from .jobs.store import JobStore
from .trouble import Loop

EVERY_SECONDS = 60.0


class Housekeeping(Loop):
    """keep_bytes: how much all videos may take, None: as much as there is."""

    def __init__(
        self,
        store: JobStore,
        folder: DataFolder,
        events: EventBus,
        log: FilteringBoundLogger,
        keep_bytes: int | None,
    ) -> None:
        super().__init__("housekeeping", EVERY_SECONDS, log)
        self._store = store
        self._folder = folder
        self._events = events
        self._log = log
        self._keep_bytes = keep_bytes

    def turn(self) -> None:
        """Delete now what is to go."""
        for job in self._store.expire(self._keep_bytes):
            try:
                self._folder.remove(job.id)
            except DataFolderError as error:  # the next start removes what is left
                self._log.error("files not removed", video=job.id, why=str(error))
            self._events.publish(ServerEvent("deleted", job.id, job.owner))
            self._log.info("video expired", video=job.id)
