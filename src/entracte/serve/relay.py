"""The relay: passes events between the nodes of a shared database, by PostgreSQL's NOTIFY.

Events may be lost when a connection is; whoever depends on one also looks at times. Pictures are
too large for a notification, so the newest of each video is a row.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert
from structlog.typing import FilteringBoundLogger

from .background import Loop
from .events import EventBus, Kind, ServerEvent
from .jobs.database import read_rows, writing
from .jobs.failures import DatabaseError, failing
from .jobs.tables import previews

CHANNEL = "entracte"

# Events are collected this long, so that many become one notification.
COLLECT_SECONDS = 0.05

# Events of one notification, which has at most 8,000 bytes.
MOST_EVENTS = 50

# How long the receiver waits before it sees whether it should stop.
LISTEN_SECONDS = 1.0


class Sender(Loop):
    """Sends this node's events. origin: by which nodes know their own."""

    def __init__(self, engine: Engine, log: FilteringBoundLogger) -> None:
        super().__init__("relay's sender", COLLECT_SECONDS, log)
        self._engine = engine
        self._lock = threading.Lock()
        self._pending: dict[tuple[Kind, str], ServerEvent] = {}
        self._arrived = threading.Event()
        self.origin = os.urandom(8).hex()

    def send(self, event: ServerEvent) -> None:
        """From any thread, without waiting."""
        with self._lock:
            self._pending[event.kind, event.video_id] = event
        self._arrived.set()

    def stop(self) -> None:
        super().stop()
        self._arrived.set()

    def run(self) -> None:
        super().run()
        with suppress(DatabaseError):
            self.turn()  # what was still to be sent

    def turn(self) -> None:
        """Send what has come."""
        self._arrived.wait(LISTEN_SECONDS)
        self._arrived.clear()
        with self._lock:
            events, self._pending = list(self._pending.values()), {}
        if not events:
            return
        with writing(self._engine) as session:
            for event in events:
                if event.kind == "preview":
                    row = {"step": event.step, "image": event.image}
                    added = insert(previews).values(video_id=event.video_id, **row)
                    session.execute(
                        added.on_conflict_do_update(index_elements=["video_id"], set_=row)
                    )
            for first in range(0, len(events), MOST_EVENTS):
                told = [_told(event) for event in events[first : first + MOST_EVENTS]]
                payload = json.dumps({"origin": self.origin, "events": told})
                session.execute(select(func.pg_notify(CHANNEL, payload)))


class Receiver(Loop):
    """Publishes other nodes' events on this node's bus. work: called when there may be work."""

    def __init__(
        self,
        engine: Engine,
        events: EventBus,
        origin: str,
        work: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        super().__init__("relay's receiver", COLLECT_SECONDS, log)
        self._engine = engine
        self._events = events
        self._origin = origin
        self._work = work

    def turn(self) -> None:
        """Listen until told to stop; raises DatabaseError when the connection is lost."""
        with self._connected() as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            self._work()  # what was announced meanwhile
            self.trouble.over()
            while not self._stopping.is_set():
                for notice in connection.notifies(timeout=LISTEN_SECONDS):
                    self._receive(notice.payload)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A connection of the driver, which alone can listen, and of nobody else."""
        with failing(), self._engine.connect() as pooled:
            connection: Any = pooled.connection.driver_connection
            pooled.detach()  # a pool would hand it on, listening
            connection.autocommit = True
            try:
                yield connection
            except self._engine.dialect.loaded_dbapi.Error as error:
                raise DatabaseError(f"the database failed: {error}") from error

    def _receive(self, payload: str) -> None:
        said = json.loads(payload)
        if said["origin"] == self._origin:
            return
        for kind, video_id, owner, step in said["events"]:
            if kind == "queued":
                self._work()
                continue
            event = ServerEvent(kind, video_id, owner, step=step)
            if self._events.is_wanted(event):
                self._events.deliver(self._with_image(event) if kind == "preview" else event)

    def _with_image(self, event: ServerEvent) -> ServerEvent:
        query = select(previews).where(previews.c.video_id == event.video_id)
        for row in read_rows(self._engine, query):
            return ServerEvent("preview", event.video_id, event.owner, row["image"], row["step"])
        return event


def _told(event: ServerEvent) -> tuple[str, str, str | None, int]:
    return event.kind, event.video_id, event.owner, event.step
