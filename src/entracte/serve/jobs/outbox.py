"""The outbox: pending webhooks, written in the transaction that ends a job."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, and_, delete, func, insert, select, update
from sqlalchemy.orm import Session

from .clock import database_clock, now
from .database import read_rows, writing
from .job import Job
from .tables import deliveries

# The owner of messages for the operator's own URLs.
OPERATOR = "operator"

# How long a server keeps a delivery to itself; if it dies, another one takes it then.
TAKEN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one URL. owner: of the URL. attempts: how many have failed."""

    id: str
    url: str
    owner: str
    body: bytes
    attempts: int
    due_at: float = 0.0


class Outbox:
    """urls: those that get a message for every video, of any key."""

    def __init__(self, engine: Engine, urls: Sequence[str] = ()) -> None:
        self._engine = engine
        self._urls = tuple(urls)
        self._clock = database_clock(engine)

    def now(self) -> float:
        """The time by which deliveries are due, in Unix seconds."""
        return now(self._engine)

    def announce(self, session: Session, job: Job, at: float) -> None:
        """Add a finished job to the outbox, within the transaction that ends it."""
        urls = [*self._urls, *([job.webhook_url] if job.webhook_url else [])]
        for url in dict.fromkeys(urls):
            message = f"evt_{uuid.uuid4().hex}"
            values = {
                "id": message,
                "url": url,
                "owner": OPERATOR if url in self._urls else job.owner,
                "body": _body(message, job, at),
                "due_at": at,
            }
            session.execute(insert(deliveries).values(values))

    def due(self, at: float, limit: int = 20) -> list[list[Delivery]]:
        """The deliveries due then, oldest first, grouped by URL."""
        age = (deliveries.c.due_at, deliveries.c.number)
        turn = func.row_number().over(partition_by=deliveries.c.url, order_by=age)
        ready = select(deliveries, turn.label("turn")).where(deliveries.c.due_at <= at).subquery()
        query = select(ready).where(ready.c.turn <= limit)
        query = query.order_by(ready.c.due_at, ready.c.number)
        found: dict[str, list[Delivery]] = {}
        for row in read_rows(self._engine, query):
            delivery = Delivery(
                row["id"],
                row["url"],
                row["owner"],
                row["body"].encode(),
                row["attempts"],
                row["due_at"],
            )
            found.setdefault(delivery.url, []).append(delivery)
        return list(found.values())

    def take(self, delivery: Delivery) -> bool:
        """Whether this server is the one to attempt a delivery now. SQLite has only one."""
        if self._engine.dialect.name == "sqlite":
            return True
        this = and_(deliveries.c.id == delivery.id, deliveries.c.due_at == delivery.due_at)
        with writing(self._engine) as session:
            until = self._clock(session) + TAKEN_SECONDS
            taken = update(deliveries).where(this).values(due_at=until)
            return bool(session.execute(taken.returning(deliveries.c.id)).first())

    def settle(self, delivery: Delivery, again_at: float | None) -> None:
        """Note an attempt, and the time of the next one, if any."""
        this = deliveries.c.id == delivery.id
        with writing(self._engine) as session:
            if again_at is None:
                session.execute(delete(deliveries).where(this))
            else:
                values: dict[str, Any] = {"due_at": again_at, "attempts": delivery.attempts + 1}
                session.execute(update(deliveries).where(this).values(values))


def _body(message: str, job: Job, at: float) -> str:
    """The event in the form of OpenAI's webhooks, without the prompt."""
    return json.dumps(
        {
            "id": message,
            "object": "event",
            "created_at": int(at),
            "type": f"video.{job.status}",
            "data": {"id": job.id},
        }
    )
