"""The job store: every change of a job is one transaction, so kills lose nothing.

A job ends once: only the worker that holds it can end it. A worker holds a job until its lease
expires; a heartbeat extends the lease.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from entracte.stages import MUX

from .admission import QueueLimits, find_repeated, require_owner, require_room
from .clock import database_clock
from .database import read_jobs, read_rows, writing
from .failures import failing
from .job import CANCELLED, WORKER_LOST, Advance, Completion, Job
from .locks import Lock, hold
from .outbox import Outbox
from .tables import deleted_jobs, previews

# A job started this often without an outcome is assumed to kill its workers.
MAX_ATTEMPTS = 2

# The number of deleted jobs whose positions are kept.
PLACES_KEPT = 100_000

CANCELLED_WORDS = "Cancelled."
LOST_WORDS = f"The server was stopped while it made this video, {MAX_ATTEMPTS} times."

# Changed rows are read back.
FRESH = {"synchronize_session": False, "populate_existing": True}


# A condition on jobs.
Which = ColumnElement[bool]


class JobStore:
    """Jobs in a database; thread-safe, also across processes and machines.

    keep_s: how long a finished job is kept; None: forever. clock: Unix seconds; None: the
    database's, which all machines share.
    """

    def __init__(
        self,
        engine: Engine,
        outbox: Outbox,
        keep_s: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._engine = engine
        self._outbox = outbox
        self._keep_s = keep_s
        self._clock = database_clock(engine) if clock is None else lambda _: clock()

    def now(self) -> float:
        """The time by which jobs are dated; raises DatabaseError."""
        with failing(), Session(self._engine) as session:
            return self._clock(session)

    def submit(self, job: Job, limits: QueueLimits) -> Job:
        """Add a job, or return the one with the same idempotency key.

        Raises QueueFull, OwnerGone, and KeyReused if that one's request differs.
        """
        with writing(self._engine) as session:
            hold(session, Lock.ADMISSION)
            require_owner(session, job)
            earlier = find_repeated(session, job)
            if earlier is not None:
                return earlier
            require_room(session, job, limits)
            job.created_at = self._clock(session)
            session.add(job)
            session.flush()
            session.refresh(job)
            return job

    def find(self, video_id: str, owner: str | None = None) -> Job | None:
        """A job by its id, and by its owner if given."""
        query = select(Job).where(Job.id == video_id, ~Job.deleted)
        if owner is not None:
            query = query.where(Job.owner == owner)
        return next(iter(read_jobs(self._engine, query)), None)

    def page(
        self, owner: str | None, after: int | None, limit: int, newest_first: bool = True
    ) -> list[Job]:
        """Jobs in the order of their numbers, from the one after number `after`."""
        query = select(Job).where(~Job.deleted).limit(limit)
        if owner is not None:
            query = query.where(Job.owner == owner)
        if after is not None:
            query = query.where(Job.number < after if newest_first else Job.number > after)
        query = query.order_by(Job.number.desc() if newest_first else Job.number)
        return read_jobs(self._engine, query)

    def place(self, video_id: str, owner: str) -> int | None:
        """The number of an owner's job, even if deleted; None if there was none."""
        for table in (Job.__table__.c, deleted_jobs.c):
            query = select(table.number).where(table.id == video_id, table.owner == owner)
            for row in read_rows(self._engine, query):
                return int(row["number"])
        return None

    def waiting(self) -> list[Job]:
        """All queued jobs, in the order in which they will start."""
        query = select(Job).where(Job.status == "queued")
        query = query.order_by(Job.priority.desc(), Job.number)
        return read_jobs(self._engine, query)

    def running(self) -> list[Job]:
        """All running jobs."""
        query = select(Job).where(Job.status == "in_progress").order_by(Job.number)
        return read_jobs(self._engine, query)

    def claim(
        self, worker: str, lease_s: float, running_per_owner: int | None = None
    ) -> Job | None:
        """Claim the next job for a worker; None if none may run now.

        running_per_owner: how many jobs of an owner may be on devices.
        """
        if not read_rows(self._engine, select(Job.id).where(Job.status == "queued").limit(1)):
            return None
        other = aliased(Job)
        runs = (
            select(func.count())
            .where(other.owner == Job.owner, other.status == "in_progress", _on_device(other))
            .scalar_subquery()
        )
        may_run = Job.status == "queued"
        if running_per_owner is not None:
            may_run = and_(may_run, runs < running_per_owner)
        turn = select(Job.number).where(may_run)
        turn = turn.order_by(Job.priority.desc(), Job.number).limit(1)
        with writing(self._engine) as session:
            if running_per_owner is not None:
                hold(session, Lock.CLAIM)  # or two could count before either begins
            number = session.scalar(turn.with_for_update(skip_locked=True))
            if number is None:
                return None
            now = self._clock(session)
            return self._change(
                session,
                Job.number == number,
                status="in_progress",
                worker=worker,
                lease_until=now + lease_s,
                started_at=now,
                attempts=Job.attempts + 1,
            )

    def heartbeat(self, job: Job, lease_s: float, advance: Advance | None = None) -> Job | None:
        """Extend the lease and store progress; None if the worker no longer holds the job."""
        values: dict[str, Any] = {} if advance is None else asdict(advance)
        with writing(self._engine) as session:
            until = self._clock(session) + lease_s
            return self._change(session, _held(job), lease_until=until, **values)

    def complete(self, job: Job, done: Completion) -> Job | None:
        """Mark a job as completed; None if the worker no longer holds it."""
        with writing(self._engine) as session:
            return self._end(session, _held(job), status="completed", progress=100, **asdict(done))

    def fail(self, job: Job, code: str, message: str) -> Job | None:
        """Mark a job as failed; None if the worker no longer holds it."""
        with writing(self._engine) as session:
            return self._fail(session, _held(job), code, message)

    def retry(self, job: Job, code: str, message: str) -> Job | None:
        """Requeue a job whose worker was lost; fail it if that was its last attempt."""
        if job.attempts >= MAX_ATTEMPTS:
            return self.fail(job, code, message)
        with writing(self._engine) as session:
            return self._back(session, job, {})

    def give_back(self, job: Job) -> Job | None:
        """Return a job to the queue; cancel it if that was requested meanwhile."""
        with writing(self._engine) as session:
            return self._back(session, job, {"attempts": Job.attempts - 1})

    def cancel_wanted(self, job: Job) -> bool:
        """Whether a running job should stop."""
        query = select(Job.id).where(_held(job), ~Job.cancel_requested)
        return not read_rows(self._engine, query)

    def cancel(self, job: Job) -> Job | None:
        """Cancel a job: at once if it is queued, at its next step if it runs.

        A finished job is left as it is. None if the job does not exist.
        """
        with writing(self._engine) as session:
            return self._cancel(session, Job.id == job.id)

    def cancel_all(self, owner: str) -> list[Job]:
        """Cancel all queued and running jobs of an owner; returns them."""
        with writing(self._engine) as session:
            unended = and_(
                Job.owner == owner,
                Job.status.in_(("queued", "in_progress")),
                ~Job.cancel_requested,
            )
            ids = session.scalars(select(Job.id).where(unended)).all()
            found = [self._cancel(session, Job.id == each) for each in ids]
            return [job for job in found if job is not None]

    def delete(self, job: Job, remove_files: Callable[[str], None]) -> bool:
        """Delete a job with its files. False if its worker must stop first.

        If `remove_files` raises, given the job's id, the job is kept.
        """
        with writing(self._engine) as session:
            this = Job.id == job.id
            _lock(session, this)
            runs = and_(this, Job.status == "in_progress")
            # Its idempotency key is free at once: a repeated request wants a new video.
            gone = {"cancel_requested": True, "deleted": True, "idempotency_key": None}
            if self._change(session, runs, **gone) is not None:
                return False
            _remove(session, this)
            remove_files(job.id)
            return True

    def remove_deleted(self, job: Job) -> None:
        """Remove a deleted job once its worker has stopped."""
        with writing(self._engine) as session:
            _remove(session, and_(Job.id == job.id, Job.deleted))

    def recover(self, worker: str | None = None, but: Collection[str] = ()) -> list[Job]:
        """After a restart: jobs that no worker runs any more begin again, or fail.

        Of all workers, only for the server that holds the data folder. worker: only the jobs of
        that one. but: ids of those that it runs. Returns the jobs.
        """
        orphan: Which = Job.id.not_in(list(but))
        if worker is not None:
            orphan = and_(orphan, Job.worker == worker)
        with writing(self._engine) as session:
            return self._recover_all(session, orphan)

    def recover_expired(self) -> list[Job]:
        """Jobs whose workers have let their leases expire begin again, or fail; returns them."""
        if not read_rows(self._engine, select(Job.id).where(Job.status == "in_progress").limit(1)):
            return []
        with writing(self._engine) as session:
            return self._recover_all(session, Job.lease_until < self._clock(session))

    def expire(self, keep_bytes: int | None = None) -> list[Job]:
        """Delete finished jobs that are too old, then the oldest while all files together are too
        large.
        """
        with writing(self._engine) as session:
            hold(session, Lock.HOUSEKEEPING)
            session.execute(delete(previews).where(previews.c.video_id.not_in(_RUNNING)))
            ended = Job.status.in_(("completed", "failed"))
            if self._keep_s is not None:  # also of those ended by a process without this setting
                unknown = and_(ended, Job.expires_at.is_(None))
                expires = Job.completed_at + self._keep_s
                session.execute(
                    update(Job).where(unknown).values(expires_at=expires), execution_options=FRESH
                )
            old = and_(ended, Job.expires_at <= self._clock(session))
            gone = list(session.scalars(select(Job).where(old)))
            if keep_bytes is not None:
                waiting = select(func.coalesce(func.sum(Job.input_bytes), 0)).where(~ended)
                total = session.scalars(waiting).one()
                for job in session.scalars(
                    select(Job).where(ended).order_by(Job.completed_at.desc())
                ):
                    total += (job.bytes or 0) + job.input_bytes
                    if total > keep_bytes and job not in gone and job.bytes:
                        gone.append(job)
            there = set(_lock(session, Job.id.in_([job.id for job in gone])))
            _remove(session, Job.id.in_(there))
            _forget_oldest(session)
            return [job for job in gone if job.id in there]

    def ended(self, older_than_s: float = 0.0, failed_only: bool = False) -> list[Job]:
        """Finished jobs, those that finished that many seconds ago or earlier."""
        states = ("failed",) if failed_only else ("completed", "failed")
        until = self.now() - older_than_s
        query = select(Job).where(Job.status.in_(states), Job.completed_at <= until)
        return read_jobs(self._engine, query)

    def known(self, failed: bool = True) -> set[str]:
        """The ids of all jobs; those that failed can be left out."""
        query = select(Job.id)
        if not failed:
            query = query.where(Job.status != "failed")
        return {row["id"] for row in read_rows(self._engine, query)}

    def _cancel(self, session: Session, this: Which) -> Job | None:
        _lock(session, this)
        waits = and_(this, Job.status == "queued")
        runs = and_(this, Job.status == "in_progress", ~Job.cancel_requested)
        return (
            self._fail(session, waits, CANCELLED, CANCELLED_WORDS)
            or self._change(session, runs, cancel_requested=True)
            or session.scalars(select(Job).where(this)).one_or_none()
        )

    def _recover_all(self, session: Session, orphan: Which) -> list[Job]:
        runs = and_(Job.status == "in_progress", orphan)
        locked = Job.id.in_(_lock(session, runs, skip=True))
        _remove(session, and_(locked, Job.deleted))
        found = session.scalars(select(Job).where(locked)).all()
        return [changed for job in found if (changed := self._recover(session, job)) is not None]

    def _recover(self, session: Session, job: Job) -> Job | None:
        this = Job.id == job.id
        if job.cancel_requested:
            return self._fail(session, this, CANCELLED, CANCELLED_WORDS)
        if job.attempts >= MAX_ATTEMPTS:
            return self._fail(session, this, WORKER_LOST, LOST_WORDS)
        return self._change(session, this, **_AGAIN)

    def _back(self, session: Session, job: Job, more: dict[str, Any]) -> Job | None:
        _lock(session, _held(job))
        asked = and_(_held(job), Job.cancel_requested)
        return self._fail(session, asked, CANCELLED, CANCELLED_WORDS) or self._change(
            session, _held(job), **_AGAIN, **more
        )

    def _fail(self, session: Session, which: Which, code: str, message: str) -> Job | None:
        values = {"status": "failed", "error_code": code, "error_message": message}
        return self._end(session, which, input_bytes=0, **values)  # its images are removed

    def _end(self, session: Session, which: Which, **values: Any) -> Job | None:
        now = self._clock(session)
        expires = None if self._keep_s is None else now + self._keep_s
        ending = {"completed_at": now, "expires_at": expires, "seconds_left": None, **_FREE}
        job = self._change(session, which, **ending, **values)
        if job is not None and not job.deleted:
            self._outbox.announce(session, job, now)
        return job

    def _change(self, session: Session, which: Which, **values: Any) -> Job | None:
        changed = update(Job).where(which).values(revision=Job.revision + 1, **values)
        return session.scalars(changed.returning(Job), execution_options=FRESH).one_or_none()


_RUNNING = select(Job.id).where(Job.status == "in_progress")

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


def _on_device(job: type[Job]) -> Which:
    """Matches unless only the job's file is left to write."""
    return job.stage.is_distinct_from(MUX.name)


def _held(job: Job) -> Which:
    """Matches if the worker still holds the job, in the same attempt."""
    return and_(
        Job.id == job.id,
        Job.status == "in_progress",
        Job.worker == job.worker,
        Job.attempts == job.attempts,
    )


def _lock(session: Session, which: Which, skip: bool = False) -> list[str]:
    """Keep others from changing jobs until the transaction ends; returns their ids.

    SQLite's transactions do that anyway. skip: leave out those that others have locked.
    """
    query = select(Job.id).where(which).order_by(Job.number).with_for_update(skip_locked=skip)
    return list(session.scalars(query))


def _remove(session: Session, which: Which) -> None:
    """Delete jobs, but keep their positions."""
    places = select(Job.number, Job.id, Job.owner).where(which)
    session.execute(insert(deleted_jobs).from_select(["number", "id", "owner"], places))
    session.execute(delete(Job).where(which), execution_options={"synchronize_session": False})


def _forget_oldest(session: Session) -> None:
    newest = select(func.max(deleted_jobs.c.number)).scalar_subquery()
    old = deleted_jobs.c.number <= newest - PLACES_KEPT
    session.execute(delete(deleted_jobs).where(old))
