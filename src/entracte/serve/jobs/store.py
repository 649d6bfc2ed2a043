"""The job store: every change of a job is one transaction, and is lost by no kill.

A job ends once: whoever ends it must still have it. Work is believed to be in good hands until
its lease ends; a heartbeat extends the lease.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, insert, select, update

from entracte.errors import EntracteError

from .database import as_job, read_rows, writing
from .job import CANCELLED, WORKER_LOST, Advance, Completion, Job, NewJob
from .outbox import Outbox
from .tables import deleted_jobs, jobs, keys

# How often a job is begun before its worker's death is taken to be its own fault.
MAX_ATTEMPTS = 2

# Of so many deleted jobs it is known where they stood.
PLACES_KEPT = 100_000

# Of the ids of keys; other owners are not in the table of keys.
KEY_PREFIX = "key_"

CANCELLED_WORDS = "Cancelled."
LOST_WORDS = f"The server was stopped while it made this video, {MAX_ATTEMPTS} times."


class QueueFull(EntracteError):
    """No further job is taken now."""


class OwnerGone(EntracteError):
    """The key that asks was revoked meanwhile."""


class KeyReused(EntracteError):
    """An idempotency key was used for another request before."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs may wait: in all, and of one owner. input_bytes: of those of one owner."""

    queued: int
    queued_per_owner: int
    input_bytes: int | None = None


class JobStore:
    """Jobs in a database; may be used by all threads, and by several processes.

    keep_s: how long an ended job is kept, None: for ever. clock: Unix seconds.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        keep_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._outbox = outbox
        self._keep_s = keep_s
        self._clock = clock

    def submit(self, new: NewJob, limits: QueueLimits) -> Job:
        """Take a job in, or give back the one that the same idempotency key made.

        Raises QueueFull, OwnerGone, and KeyReused where that one asked for something else.
        """
        with writing(self._engine) as connection:
            if new.owner.startswith(KEY_PREFIX):
                owner = select(keys.c.id).where(keys.c.id == new.owner)
                if connection.execute(owner).scalar() is None:
                    raise OwnerGone("this API key was revoked")
            if new.idempotency_key is not None:
                earlier = connection.execute(
                    select(jobs).where(
                        jobs.c.owner == new.owner, jobs.c.idempotency_key == new.idempotency_key
                    )
                ).mappings()
                for row in earlier:
                    if row["fingerprint"] != new.fingerprint:
                        raise KeyReused("this Idempotency-Key was used for another request")
                    return as_job(row)
            waiting = select(func.count()).where(jobs.c.status == "queued")
            if connection.execute(waiting).scalar_one() >= limits.queued:
                raise QueueFull(f"the queue is full: {limits.queued} videos wait")
            mine = connection.execute(waiting.where(jobs.c.owner == new.owner)).scalar_one()
            if mine >= limits.queued_per_owner:
                raise QueueFull(f"{mine} of your videos wait already, as many as may")
            sizes = select(func.coalesce(func.sum(jobs.c.input_bytes), 0))
            sizes = sizes.where(jobs.c.status == "queued", jobs.c.owner == new.owner)
            held = connection.execute(sizes).scalar_one() + new.input_bytes
            if limits.input_bytes is not None and new.input_bytes and held > limits.input_bytes:
                limit = limits.input_bytes / 2**20
                raise QueueFull(f"the images of your waiting videos would be over {limit:g} MiB")
            values = asdict(new) | {"status": "queued", "created_at": self._clock()}
            made = connection.execute(insert(jobs).values(values).returning(jobs))
            return as_job(made.mappings().one())

    def find(self, video_id: str, owner: str | None = None) -> Job | None:
        """A job by its id; of an owner, where one is given."""
        query = select(jobs).where(jobs.c.id == video_id, ~jobs.c.deleted)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        return next(map(as_job, read_rows(self._engine, query)), None)

    def page(
        self, owner: str | None, after: int | None, limit: int, newest_first: bool = True
    ) -> list[Job]:
        """Jobs in the order of their numbers, those behind number `after`."""
        query = select(jobs).where(~jobs.c.deleted).limit(limit)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if after is not None:
            query = query.where(jobs.c.number < after if newest_first else jobs.c.number > after)
        query = query.order_by(jobs.c.number.desc() if newest_first else jobs.c.number)
        return list(map(as_job, read_rows(self._engine, query)))

    def place(self, video_id: str, owner: str) -> int | None:
        """The number of an owner's job, of one that is deleted too; None where there was none."""
        for table in (jobs, deleted_jobs):
            query = select(table.c.number).where(table.c.id == video_id, table.c.owner == owner)
            for row in read_rows(self._engine, query):
                return int(row["number"])
        return None

    def waiting(self) -> list[Job]:
        """All queued jobs, in the order in which they will be begun."""
        query = select(jobs).where(jobs.c.status == "queued")
        query = query.order_by(jobs.c.priority.desc(), jobs.c.number)
        return list(map(as_job, read_rows(self._engine, query)))

    def running(self) -> list[Job]:
        """All jobs that are being made."""
        query = select(jobs).where(jobs.c.status == "in_progress").order_by(jobs.c.number)
        return list(map(as_job, read_rows(self._engine, query)))

    def claim(
        self, worker: str, lease_s: float, running_per_owner: int | None = None
    ) -> Job | None:
        """Take the next job, for a worker; None where there is none that may run now."""
        if not read_rows(self._engine, select(jobs.c.id).where(jobs.c.status == "queued").limit(1)):
            return None
        now = self._clock()
        other = jobs.alias()
        runs = (
            select(func.count())
            .where(other.c.owner == jobs.c.owner, other.c.status == "in_progress")
            .scalar_subquery()
        )
        may_run = jobs.c.status == "queued"
        if running_per_owner is not None:
            may_run = and_(may_run, runs < running_per_owner)
        turn = select(jobs.c.number).where(may_run)
        turn = turn.order_by(jobs.c.priority.desc(), jobs.c.number).limit(1)
        with writing(self._engine) as connection:
            number = connection.execute(turn).scalar()
            if number is None:
                return None
            return self._change(
                connection,
                jobs.c.number == number,
                status="in_progress",
                worker=worker,
                lease_until=now + lease_s,
                started_at=now,
                attempts=jobs.c.attempts + 1,
            )

    def heartbeat(self, job: Job, lease_s: float, advance: Advance | None = None) -> Job | None:
        """Extend the lease, and note how far the job is; None where it is the worker's no more."""
        values: dict[str, Any] = {} if advance is None else asdict(advance)
        with writing(self._engine) as connection:
            return self._change(
                connection, _held(job), lease_until=self._clock() + lease_s, **values
            )

    def complete(self, job: Job, done: Completion) -> Job | None:
        """The video is there, whole; None where the job is the worker's no more."""
        with writing(self._engine) as connection:
            return self._end(
                connection, _held(job), status="completed", progress=100, **asdict(done)
            )

    def fail(self, job: Job, code: str, message: str) -> Job | None:
        """A job ended without a video; None where it is the worker's no more."""
        with writing(self._engine) as connection:
            return self._fail(connection, _held(job), code, message)

    def retry(self, job: Job, code: str, message: str) -> Job | None:
        """Have a job begin again whose worker was lost; fail it where that was its last attempt."""
        if job.attempts >= MAX_ATTEMPTS:
            return self.fail(job, code, message)
        with writing(self._engine) as connection:
            return self._back(connection, job, {})

    def give_back(self, job: Job) -> Job | None:
        """Have a job begin again later; cancel it, where that was asked meanwhile."""
        with writing(self._engine) as connection:
            return self._back(connection, job, {"attempts": jobs.c.attempts - 1})

    def cancel_wanted(self, job: Job) -> bool:
        """Whether a running job's worker is to stop."""
        query = select(jobs.c.id).where(_held(job), ~jobs.c.cancel_requested)
        return not read_rows(self._engine, query)

    def cancel(self, job: Job) -> Job | None:
        """Cancel a job: at once where it waits, at its next step where it runs.

        An ended job is left as it is. None where there is no such job any more.
        """
        with writing(self._engine) as connection:
            return self._cancel(connection, jobs.c.id == job.id)

    def cancel_all(self, owner: str) -> list[Job]:
        """Cancel whatever of an owner's waits or runs; the jobs as they are now."""
        with writing(self._engine) as connection:
            unended = and_(
                jobs.c.owner == owner,
                jobs.c.status.in_(("queued", "in_progress")),
                ~jobs.c.cancel_requested,
            )
            ids = connection.execute(select(jobs.c.id).where(unended)).scalars().all()
            found = [self._cancel(connection, jobs.c.id == each) for each in ids]
            return [job for job in found if job is not None]

    def delete(self, job: Job, remove_files: Callable[[str], None]) -> bool:
        """Delete a job with its files. False where its worker is told to stop first.

        What `remove_files` raises, given the job's id, leaves the job as it is.
        """
        with writing(self._engine) as connection:
            this = jobs.c.id == job.id
            runs = and_(this, jobs.c.status == "in_progress")
            # Its idempotency key is free at once: who asks again wants a new video.
            gone = {"cancel_requested": True, "deleted": True, "idempotency_key": None}
            if self._change(connection, runs, **gone) is not None:
                return False
            _remove(connection, this)
            remove_files(job.id)
            return True

    def remove_deleted(self, job: Job) -> None:
        """A deleted job's worker has let go of it."""
        with writing(self._engine) as connection:
            _remove(connection, and_(jobs.c.id == job.id, jobs.c.deleted))

    def recover(self, worker: str | None = None) -> list[Job]:
        """After a restart: jobs that nobody works on any more begin again, or fail.

        Only for the server that has the data folder to itself. worker: only what it had. Returns
        them as they are now.
        """
        with writing(self._engine) as connection:
            orphan = jobs.c.status == "in_progress"
            if worker is not None:
                orphan = and_(orphan, jobs.c.worker == worker)
            _remove(connection, and_(orphan, jobs.c.deleted))
            found = [
                as_job(row) for row in connection.execute(select(jobs).where(orphan)).mappings()
            ]
            return [
                changed for job in found if (changed := self._recover(connection, job)) is not None
            ]

    def expire(self, keep_bytes: int | None = None) -> list[Job]:
        """Delete ended jobs that are too old, then the oldest while all files take too much."""
        with writing(self._engine) as connection:
            ended = jobs.c.status.in_(("completed", "failed"))
            if self._keep_s is not None:  # also of those that somebody ended who did not know it
                unknown = and_(ended, jobs.c.expires_at.is_(None))
                expires = jobs.c.completed_at + self._keep_s
                connection.execute(update(jobs).where(unknown).values(expires_at=expires))
            old = and_(ended, jobs.c.expires_at <= self._clock())
            gone = [as_job(row) for row in connection.execute(select(jobs).where(old)).mappings()]
            if keep_bytes is not None:
                rows = connection.execute(
                    select(jobs).where(ended).order_by(jobs.c.completed_at.desc())
                ).mappings()
                waiting = select(func.coalesce(func.sum(jobs.c.input_bytes), 0)).where(~ended)
                total = connection.execute(waiting).scalar_one()
                for job in map(as_job, rows):
                    total += (job.bytes or 0) + job.input_bytes
                    if total > keep_bytes and job not in gone and job.bytes:
                        gone.append(job)
            _remove(connection, jobs.c.id.in_([job.id for job in gone]))
            _forget_oldest(connection)
            return gone

    def ended(self, older_than_s: float = 0.0, failed_only: bool = False) -> list[Job]:
        """Ended jobs, those that ended so many seconds ago or earlier."""
        states = ("failed",) if failed_only else ("completed", "failed")
        query = select(jobs).where(
            jobs.c.status.in_(states), jobs.c.completed_at <= self._clock() - older_than_s
        )
        return list(map(as_job, read_rows(self._engine, query)))

    def known(self, failed: bool = True) -> set[str]:
        """The ids of all jobs, those that failed included unless they are not wanted."""
        query = select(jobs.c.id)
        if not failed:
            query = query.where(jobs.c.status != "failed")
        return {row["id"] for row in read_rows(self._engine, query)}

    def _cancel(self, connection: Connection, this: Any) -> Job | None:
        waits = and_(this, jobs.c.status == "queued")
        runs = and_(this, jobs.c.status == "in_progress", ~jobs.c.cancel_requested)
        return (
            self._fail(connection, waits, CANCELLED, CANCELLED_WORDS)
            or self._change(connection, runs, cancel_requested=True)
            or _one(connection, this)
        )

    def _recover(self, connection: Connection, job: Job) -> Job | None:
        this = jobs.c.id == job.id
        if job.cancel_requested:
            return self._fail(connection, this, CANCELLED, CANCELLED_WORDS)
        if job.attempts >= MAX_ATTEMPTS:
            return self._fail(connection, this, WORKER_LOST, LOST_WORDS)
        return self._change(connection, this, **_AGAIN)

    def _back(self, connection: Connection, job: Job, more: dict[str, Any]) -> Job | None:
        asked = and_(_held(job), jobs.c.cancel_requested)
        return self._fail(connection, asked, CANCELLED, CANCELLED_WORDS) or self._change(
            connection, _held(job), **_AGAIN, **more
        )

    def _fail(self, connection: Connection, which: Any, code: str, message: str) -> Job | None:
        values = {"status": "failed", "error_code": code, "error_message": message}
        return self._end(connection, which, input_bytes=0, **values)  # its images are removed

    def _end(self, connection: Connection, which: Any, **values: Any) -> Job | None:
        now = self._clock()
        expires = None if self._keep_s is None else now + self._keep_s
        ending = {"completed_at": now, "expires_at": expires, "seconds_left": None, **_FREE}
        job = self._change(connection, which, **ending, **values)
        if job is not None and not job.deleted:
            self._outbox.announce(connection, job, now)
        return job

    def _change(self, connection: Connection, which: Any, **values: Any) -> Job | None:
        changed = update(jobs).where(which).values(revision=jobs.c.revision + 1, **values)
        row = connection.execute(changed.returning(jobs)).mappings().one_or_none()
        return None if row is None else as_job(row)


_FREE: dict[str, Any] = {"worker": None, "lease_until": None}
_AGAIN: dict[str, Any] = {
    **_FREE,
    "status": "queued",
    "started_at": None,
    "progress": 0,
    "stage": None,
    "step": 0,
    "steps": 0,
    "seconds_left": None,
    "stage_durations": {},
}


def _held(job: Job) -> Any:
    """Still being made, by the worker and in the attempt that `job` was claimed in."""
    return and_(
        jobs.c.id == job.id,
        jobs.c.status == "in_progress",
        jobs.c.worker == job.worker,
        jobs.c.attempts == job.attempts,
    )


def _remove(connection: Connection, which: Any) -> None:
    """Delete jobs; where they stood is kept."""
    places = select(jobs.c.number, jobs.c.id, jobs.c.owner).where(which)
    connection.execute(insert(deleted_jobs).from_select(["number", "id", "owner"], places))
    connection.execute(delete(jobs).where(which))


def _forget_oldest(connection: Connection) -> None:
    newest = select(func.max(deleted_jobs.c.number)).scalar_subquery()
    old = deleted_jobs.c.number <= newest - PLACES_KEPT
    connection.execute(delete(deleted_jobs).where(old))


def _one(connection: Connection, which: Any) -> Job | None:
    row = connection.execute(select(jobs).where(which)).mappings().one_or_none()
    return None if row is None else as_job(row)
