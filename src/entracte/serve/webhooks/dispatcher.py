"""The dispatcher: delivers webhooks from the outbox, with retries."""

import os
import random
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Engine
from structlog.typing import FilteringBoundLogger

from entracte.serve.background import Loop
from entracte.serve.data_folder import DataFolder
from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.outbox import OPERATOR, Delivery, Outbox
from entracte.serve.jobs.secrets import shared_secret
from entracte.serve.metrics import Metrics
from entracte.serve.outbound.errors import SetupError
from entracte.serve.outbound.policy import Outbound, host_of

from .deliveries import Outcome, deliver, next_attempt
from .signing import new_secret, sign

EVERY_SECONDS = 1.0

# Concurrent deliveries: to the operator's URLs, to those of all keys, of one key, and to one host.
# A receiver that does not answer delays only those of its host and its key.
OF_OPERATOR = 8
OF_KEYS = 24
OF_A_KEY = 8
OF_A_HOST = 2


class InFlight:
    """Deliveries in progress, within the limits above; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[str, str] = {}  # by URL

    def begin(self, delivery: Delivery) -> bool:
        """Whether a delivery to its URL may start now; if so, `end` it later."""
        url, owner = delivery.url, delivery.owner
        with self._lock:
            owners = Counter(self._owners.values())
            of_host = sum(host_of(each) == host_of(url) for each in self._owners)
            if owner == OPERATOR:
                room = owners[OPERATOR] < OF_OPERATOR
            else:
                room = owners[owner] < OF_A_KEY
                room = room and owners.total() - owners[OPERATOR] < OF_KEYS
            if url in self._owners or of_host >= OF_A_HOST or not room:
                return False
            self._owners[url] = owner
            return True

    def end(self, delivery: Delivery) -> None:
        with self._lock:
            del self._owners[delivery.url]


class Dispatcher(Loop):
    """Sends due messages. secret: signs them."""

    def __init__(
        self,
        outbox: Outbox,
        outbound: Outbound,
        secret: str,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        super().__init__("dispatcher", EVERY_SECONDS, log)
        self._outbox = outbox
        self._client = outbound.webhooks
        self._secret = secret
        self._metrics = metrics
        self._log = log
        self._random = random.Random()
        self._in_flight = InFlight()

    def turn(self) -> None:
        for messages in self._outbox.due(self._outbox.now()):
            if self._in_flight.begin(messages[0]):
                # A stop does not wait for a host that does not answer.
                threading.Thread(target=self._deliver_all, args=(messages,), daemon=True).start()

    def _deliver_all(self, messages: Sequence[Delivery]) -> None:
        """Deliver the messages for one URL, until one must be retried."""
        try:
            for delivery in messages:
                if self._stopping.is_set() or not self._outbox.take(delivery):
                    return
                if self._deliver(delivery) == "again":
                    return
        except DatabaseError as error:
            self._log.error("the database failed", error=str(error))
        finally:
            self._in_flight.end(messages[0])

    def _deliver(self, delivery: Delivery) -> Outcome:
        outcome = deliver(self._client, self._secret, delivery)
        pause = None
        if outcome == "again":
            pause = next_attempt(delivery.attempts + 1, self._random)
        again_at = None if pause is None else self._outbox.now() + pause
        self._outbox.settle(delivery, again_at)
        self._metrics.delivered(outcome)
        if outcome != "delivered":
            self._log.warning("webhook not delivered", message=delivery.id, again_in_s=pause)
        return outcome


def webhook_secret(folder: DataFolder, database: Engine | None = None) -> str:
    """The secret, created on first use: in a database that servers share, else in the folder.

    Raises SetupError if it is damaged.
    """
    if database is not None and database.dialect.name != "sqlite":
        return shared_secret(database, "webhooks", new_secret)
    path = folder.webhook_secret
    try:
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(new_secret())
        secret = path.read_bytes().decode("ascii").strip()
    except OSError as error:
        raise SetupError(f"cannot read the webhook secret {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        secret = ""
    sign(secret, "check", 0, b"")
    return secret
