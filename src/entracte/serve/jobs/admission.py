"""Admission to the queue: limits, and repeated requests."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from entracte.errors import EntracteError
from entracte.units import mebibytes

from .job import Job
from .tables import keys

# Prefix of keys' ids; other owners are not in the table of keys.
KEY_PREFIX = "key_"


class QueueFull(EntracteError):
    """The queue accepts no further job now."""


class OwnerGone(EntracteError):
    """The key was revoked meanwhile."""


class KeyReused(EntracteError):
    """An idempotency key was already used for a different request."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs may wait, in total and per owner.

    input_bytes: of images, over all waiting jobs of one owner.
    """

    queued: int
    queued_per_owner: int
    input_bytes: int | None = None


def require_owner(session: Session, job: Job) -> None:
    """Raise OwnerGone if the key has been revoked."""
    if not job.owner.startswith(KEY_PREFIX):
        return
    if session.scalar(select(keys.c.id).where(keys.c.id == job.owner)) is None:
        raise OwnerGone("this API key was revoked")


def find_repeated(session: Session, job: Job) -> Job | None:
    """The job submitted with the same idempotency key; raises KeyReused if its request differs."""
    if job.idempotency_key is None:
        return None
    same = select(Job).where(Job.owner == job.owner, Job.idempotency_key == job.idempotency_key)
    earlier = session.scalars(same).one_or_none()
    if earlier is not None and earlier.fingerprint != job.fingerprint:
        raise KeyReused("this Idempotency-Key was used for another request")
    return earlier


def require_room(session: Session, job: Job, limits: QueueLimits) -> None:
    """Raise QueueFull if a job would exceed the limits."""
    waiting = select(func.count()).where(Job.status == "queued")
    if session.scalars(waiting).one() >= limits.queued:
        raise QueueFull(f"the queue is full: {limits.queued} videos are waiting")
    mine = session.scalars(waiting.where(Job.owner == job.owner)).one()
    if mine >= limits.queued_per_owner:
        raise QueueFull(f"{mine} of your videos are waiting already, the most allowed")
    sizes = select(func.coalesce(func.sum(Job.input_bytes), 0))
    sizes = sizes.where(Job.status == "queued", Job.owner == job.owner)
    held = session.scalars(sizes).one() + job.input_bytes
    if limits.input_bytes is not None and job.input_bytes and held > limits.input_bytes:
        raise QueueFull(
            f"the images of your waiting videos would be over {mebibytes(limits.input_bytes)}"
        )
