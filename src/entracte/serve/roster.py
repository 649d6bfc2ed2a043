"""The roster: every node of a shared database shows its workers, and sees those of the others."""

from collections.abc import Callable
from contextlib import suppress

from pydantic import TypeAdapter
from sqlalchemy import Engine, delete, insert, select, update
from structlog.typing import FilteringBoundLogger

from .background import Loop
from .jobs.clock import now
from .jobs.database import read_rows, writing
from .jobs.failures import DatabaseError
from .jobs.tables import workers
from .workers.state import WorkerSnapshot

EVERY_SECONDS = 2.0

# A worker that was not seen for this long is not shown any more.
ALIVE_SECONDS = 15.0

SNAPSHOT = TypeAdapter(WorkerSnapshot)


class Roster(Loop):
    """own: the workers of this node. others: those of the other nodes, as last seen."""

    def __init__(
        self, engine: Engine, own: Callable[[], list[WorkerSnapshot]], log: FilteringBoundLogger
    ) -> None:
        super().__init__("roster", EVERY_SECONDS, log)
        self._engine = engine
        self._own = own
        self.others: list[WorkerSnapshot] = []

    def turn(self) -> None:
        """Show this node's workers, and see the others'."""
        at = now(self._engine)
        own = self._own()
        names = [view.name for view in own]
        if own:
            self._show(own, at)
        query = select(workers.c.view).where(
            workers.c.seen_at > at - ALIVE_SECONDS, workers.c.name.not_in(names)
        )
        rows = read_rows(self._engine, query.order_by(workers.c.name))
        self.others = [SNAPSHOT.validate_python(row["view"]) for row in rows]

    def run(self) -> None:
        super().run()
        with suppress(DatabaseError), writing(self._engine) as session:
            names = [view.name for view in self._own()]
            session.execute(delete(workers).where(workers.c.name.in_(names)))

    def _show(self, own: list[WorkerSnapshot], at: float) -> None:
        with writing(self._engine) as session:
            session.execute(delete(workers).where(workers.c.seen_at < at - 10 * ALIVE_SECONDS))
            for view in own:
                row = {"view": SNAPSHOT.dump_python(view, mode="json"), "seen_at": at}
                this = workers.c.name == view.name
                changed = update(workers).where(this).values(row).returning(workers.c.name)
                if session.execute(changed).first() is None:
                    session.execute(insert(workers).values(name=view.name, **row))
