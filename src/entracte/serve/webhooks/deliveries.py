"""Deliveries: one attempt, its outcome, and the time of the next."""

import time
from collections.abc import Callable
from random import Random
from typing import Literal, Protocol

from entracte.serve.outbound.client import Client
from entracte.serve.outbound.errors import OutboundFailed, OutboundRefused, Unresolved

from .signing import sign

PAUSES: tuple[float, ...] = (5, 30, 2 * 60, 10 * 60, 60 * 60, 6 * 60 * 60)
JITTER = 0.2  # so that messages that failed together are not retried together

GONE = 410

Outcome = Literal["delivered", "again", "gone", "refused"]
"""again: it failed, and is worth another attempt. gone: the receiver wants no more of them.
refused: its URL is not one that we send to."""


class Message(Protocol):
    """A message. id: the same in every attempt, so that receivers recognise repetitions."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def body(self) -> bytes: ...


def next_attempt(attempts: int, random: Random) -> float | None:
    """Seconds until the next attempt, by the number (1 or more) that failed; None: give up."""
    if attempts > len(PAUSES):
        return None
    return PAUSES[attempts - 1] * random.uniform(1 - JITTER, 1 + JITTER)


def outcome_of(status: int) -> Outcome:
    """The outcome by HTTP status. A redirect is not a delivery: only the URL itself was named."""
    if 200 <= status < 300:
        return "delivered"
    return "gone" if status == GONE else "again"


def deliver(
    client: Client, secret: str, message: Message, clock: Callable[[], float] = time.time
) -> Outcome:
    """Sign and send a JSON message once. Raises SetupError for a damaged secret."""
    headers = {"content-type": "application/json"}
    headers |= sign(secret, message.id, int(clock()), message.body)
    try:
        return outcome_of(client.post(message.url, message.body, headers))
    except (Unresolved, OutboundFailed):
        return "again"
    except OutboundRefused:
        return "refused"
