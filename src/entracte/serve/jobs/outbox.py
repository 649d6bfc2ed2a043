"""The outbox: pending webhooks, written in the transaction that ends a job."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, delete, func, insert, select, update
from sqlalchemy.orm import Session

from .database import read_rows, writing
from .job import Job
from .tables import deliveries

# The owner of messages for the operator's own URLs.
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message for one URL. owner: of the URL. attempts: how many have failed."""

    id: str
    url: str
    owner: str
    body: bytes
    attempts: int


class Outbox:
    """urls: those that get a message for every video, of any key."""

    def __init__(self, engine: Engine, urls: Sequence[str] = ()) -> None:
        self._engine = engine
        self._urls = tuple(urls)

    def announce(self, session: Session, job: Job, now: float) -> None:
        """Add a finished job to the outbox, within the transaction that ends it."""
        urls = [*self._urls, *([job.webhook_url] if job.webhook_url else [])]
        for url in dict.fromkeys(urls):
            message = f"evt_{uuid.uuid4().hex}"
            values = {
                "id": message,
                "url": url,
                "owner": OPERATOR if url in self._urls else job.owner,
                "body": _body(message, job, now),
                "due_at": now,
            }
            session.execute(insert(deliveries).values(values))

    def due(self, now: float, limit: int = 20) -> list[list[Delivery]]:
        """The deliveries due now, oldest first, grouped by URL."""
        age = (deliveries.c.due_at, deliveries.c.number)
        turn = func.row_number().over(partition_by=deliveries.c.url, order_by=age)
        ready = select(deliveries, turn.label("turn")).where(deliveries.c.due_at <= now).subquery()
        query = select(ready).where(ready.c.turn <= limit)
        query = query.order_by(ready.c.due_at, ready.c.number)
        found: dict[str, list[Delivery]] = {}
        for row in read_rows(self._engine, query):
            delivery = Delivery(
                row["id"], row["url"], row["owner"], row["body"].encode(), row["attempts"]
            )
            found.setdefault(delivery.url, []).append(delivery)
        return list(found.values())

    def settle(self, delivery: Delivery, again_at: float | None) -> None:
        """Note an attempt, and the time of the next one, if any."""
        this = deliveries.c.id == delivery.id
        with writing(self._engine) as session:
            if again_at is None:
                session.execute(delete(deliveries).where(this))
            else:
                values: dict[str, Any] = {"due_at": again_at, "attempts": delivery.attempts + 1}
                session.execute(update(deliveries).where(this).values(values))


def _body(message: str, job: Job, now: float) -> str:
    """The event in the form of OpenAI's webhooks, without the prompt."""
    return json.dumps(
        {
            "id": message,
            "object": "event",
            "created_at": int(now),
            "type": f"video.{job.status}",
            "data": {"id": job.id},
        }
    )
