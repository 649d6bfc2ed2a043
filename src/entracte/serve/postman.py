"""The postman: delivers webhooks from the outbox, again and again until they arrive."""

import os
import random
import threading
import time
from collections.abc import Sequence

from structlog.typing import FilteringBoundLogger

from .data_folder import DataFolder
from .jobs.database import DatabaseError
from .jobs.outbox import Delivery, Outbox
from .metrics import Metrics
from .outbound.deliveries import Outcome, next_attempt
from .outbound.gate import Outbound
from .outbound.standard_webhooks import new_secret, sign
from .trouble import Loop

EVERY_SECONDS = 1.0

# So many URLs are told at once: one that does not answer does not keep the others waiting.
AT_ONCE = 8


class Postman(Loop):
    """secret: with which messages are signed."""

    def __init__(
        self,
        outbox: Outbox,
        outbound: Outbound,
        secret: str,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        super().__init__("postman", EVERY_SECONDS, log)
        self._outbox = outbox
        self._outbound = outbound
        self._secret = secret
        self._metrics = metrics
        self._log = log
        self._random = random.Random()
        self._busy: set[str] = set()

    def turn(self) -> None:
        for messages in self._outbox.due(time.time()):
            url = messages[0].url
            if url not in self._busy and len(self._busy) < AT_ONCE:
                self._busy.add(url)
                # A stop does not wait for a host that does not answer.
                threading.Thread(target=self._tell, args=(url, messages), daemon=True).start()

    def _tell(self, url: str, messages: Sequence[Delivery]) -> None:
        """Deliver messages for one URL, until it takes no more."""
        try:
            for delivery in messages:
                if self._stopping.is_set() or self._deliver(delivery) == "again":
                    return
        except DatabaseError as error:
            self._log.error("the database failed", error=str(error))
        finally:
            self._busy.discard(url)

    def _deliver(self, delivery: Delivery) -> Outcome:
        outcome = self._outbound.deliver(self._secret, delivery)
        pause = None
        if outcome == "again":
            pause = next_attempt(delivery.attempts + 1, self._random)
        self._outbox.settle(delivery, None if pause is None else time.time() + pause)
        self._metrics.delivered(outcome)
        if outcome != "delivered":
            self._log.warning("webhook not delivered", message=delivery.id, again_in_s=pause)
        return outcome


def webhook_secret(folder: DataFolder) -> str:
    """The folder's secret, made when it is first asked for; raises SetupError for a damaged one."""
    path = folder.webhook_secret
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_secret())
    secret = path.read_text().strip()
    sign(secret, "check", 0, b"")
    return secret
