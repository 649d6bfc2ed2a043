"""The probe: checks the database when it is otherwise idle, so that `/health` need not."""

from structlog.typing import FilteringBoundLogger

from .jobs.store import JobStore
from .trouble import Loop

EVERY_SECONDS = 2.0


class Probe(Loop):
    """Its trouble is that of the database: damaged, gone, replaced or not to be read."""

    def __init__(self, store: JobStore, log: FilteringBoundLogger) -> None:
        super().__init__("probe", EVERY_SECONDS, log)
        self._store = store

    def turn(self) -> None:
        self._store.running()
