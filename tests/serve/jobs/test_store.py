"""The job store: order, limits, leases, and that a job ends once."""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from entracte.serve.data_folder import DataFolder
from entracte.serve.jobs import store as store_module
from entracte.serve.jobs.admission import KeyReused, QueueFull, QueueLimits
from entracte.serve.jobs.database import open_database
from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.job import Advance, Completion, Job
from entracte.serve.jobs.outbox import Outbox
from entracte.serve.jobs.store import JobStore
from entracte.serve.service import new_id
from tests.serve.postgresql import Postgresql

PLENTY = QueueLimits(1000, 1000)
DONE = Completion({"denoise": 1.5}, 100.0, 1234)


def no_files(_: str) -> None:
    """There are none to be removed."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Path | str]:
    """Makes places for new databases."""
    if request.param == "postgresql":
        server: Postgresql = request.getfixturevalue("postgresql")
        return server.new_database
    return lambda: tmp_path / f"{new_id()}.db"


@pytest.fixture
def database(new_place: Callable[[], Path | str]) -> Iterator[Engine]:
    engine = open_database(new_place())
    yield engine
    engine.dispose()


@pytest.fixture
def store(database: Engine, clock: Clock) -> JobStore:
    return JobStore(database, Outbox(database, ["https://hooks.example/x"]), 60.0, clock)


def new(owner: str = "ann", **more: object) -> Job:
    job = Job(
        id=new_id(),
        owner=owner,
        model="ltx-2.3",
        prompt="A street",
        size="64x64",
        seconds="0.4",
        settings={"num_frames": 9},
    )
    return replace(job, **more)


def submit(store: JobStore, owner: str = "ann", **more: object) -> Job:
    return store.submit(new(owner, **more), PLENTY)


def test_first_come_first_served_within_a_priority(store: JobStore) -> None:
    asked = [submit(store, priority=priority).id for priority in (0, 5, 0, 5, -1)]
    assert [job.id for job in store.waiting()] == [asked[n] for n in (1, 3, 0, 2, 4)]
    began = [store.claim("w", 30.0) for _ in asked]
    assert [job.id for job in began if job] == [asked[n] for n in (1, 3, 0, 2, 4)]
    assert store.claim("w", 30.0) is None


def test_what_was_asked_for_comes_back(store: JobStore, clock: Clock) -> None:
    images = [{"frame": 0, "strength": 0.5, "crf": None}]
    asked = submit(store, images=images, settings={"seed": 3, "negative_prompt": "fog ☁"})
    found = store.find(asked.id)
    assert found == asked
    assert found.images == images
    assert found.settings == {"seed": 3, "negative_prompt": "fog ☁"}
    assert found.created_at == clock.now
    assert store.find(asked.id, "bob") is None


def test_the_queue_has_limits(store: JobStore) -> None:
    limits = QueueLimits(queued=3, queued_per_owner=2)
    for _ in range(2):
        store.submit(new("ann"), limits)
    with pytest.raises(QueueFull, match="2 of your videos are waiting"):
        store.submit(new("ann"), limits)
    store.submit(new("bob"), limits)
    with pytest.raises(QueueFull, match="3 videos are waiting"):
        store.submit(new("carl"), limits)
    store.claim("w", 30.0)
    store.submit(new("carl"), limits)


def test_a_repeated_request_makes_one_job(store: JobStore) -> None:
    first = store.submit(new(idempotency_key="k", fingerprint="f"), PLENTY)
    again = store.submit(new(idempotency_key="k", fingerprint="f"), QueueLimits(0, 0))
    assert again == first
    with pytest.raises(KeyReused):
        store.submit(new(idempotency_key="k", fingerprint="g"), PLENTY)
    other = store.submit(new("bob", idempotency_key="k", fingerprint="g"), PLENTY)
    assert other.id != first.id


def test_jobs_of_one_owner_take_turns(store: JobStore) -> None:
    mine = [submit(store, "ann") for _ in range(2)]
    theirs = submit(store, "bob")
    first, second = store.claim("w0", 30.0, 1), store.claim("w1", 30.0, 1)
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == (mine[0].id, theirs.id)
    assert store.claim("w2", 30.0, 1) is None
    store.complete(first, DONE)
    third = store.claim("w2", 30.0, 1)
    assert third is not None
    assert third.id == mine[1].id


def test_a_job_ends_once(store: JobStore, database: Engine, clock: Clock) -> None:
    submit(store)
    job = store.claim("w", 30.0)
    assert job is not None
    clock.now += 5
    done = store.complete(job, DONE)
    assert done is not None
    assert (done.status, done.progress, done.completed_at) == ("completed", 100, clock.now)
    assert done.expires_at == clock.now + 60
    assert (done.worker, done.lease_until, done.stage_durations) == (None, None, {"denoise": 1.5})
    assert store.fail(job, "late", "Too late.") is None
    assert store.complete(job, DONE) is None
    assert store.heartbeat(job, 30.0) is None
    assert store.cancel(done) == done
    assert [len(messages) for messages in Outbox(database).due(clock.now)] == [1]


def test_messages_of_a_url_do_not_hide_those_of_others(database: Engine, clock: Clock) -> None:
    many = Outbox(database, ["https://many.example/x"])
    store = JobStore(database, many, clock=clock)
    for _ in range(4):
        store.cancel(submit(store))
        clock.now += 1
    store.cancel(submit(store, webhook_url="https://other.example/x"))
    due = many.due(clock.now, limit=2)
    assert [[message.url for message in messages] for messages in due] == [
        ["https://many.example/x"] * 2,
        ["https://other.example/x"],
    ]
    many.settle(due[0][0], clock.now + 9)
    assert [messages[0].id for messages in many.due(clock.now)] == [due[0][1].id, due[1][0].id]


def test_what_somebody_else_ended_expires_too(
    store: JobStore, database: Engine, clock: Clock
) -> None:
    job = submit(store)
    JobStore(database, Outbox(database), clock=clock).cancel(job)  # knows of no retention
    assert store.expire() == []
    clock.now += 60
    assert [gone.id for gone in store.expire()] == [job.id]


def test_a_lost_attempt_cannot_end_the_next_one(store: JobStore) -> None:
    submit(store)
    lost = store.claim("w", 30.0)
    assert lost is not None
    store.recover()
    again = store.claim("w", 30.0)
    assert again is not None
    assert again.attempts == 2
    assert store.complete(lost, DONE) is None
    assert store.complete(again, DONE) is not None


def test_after_two_attempts_it_is_lost(store: JobStore) -> None:
    job = submit(store)
    for _ in range(2):
        assert store.claim("w", 30.0) is not None
        (recovered,) = store.recover()
    assert (recovered.id, recovered.status, recovered.error_code) == (
        job.id,
        "failed",
        "worker_lost",
    )
    assert recovered.error_message
    assert store.recover() == []


def test_what_is_given_back_has_not_been_tried(store: JobStore) -> None:
    asked = submit(store)
    later = submit(store)
    job = store.claim("w", 30.0)
    assert job is not None
    store.heartbeat(job, 30.0, Advance("denoise", 3, 8, 40, 9.5, {"load weights": 1.0}))
    back = store.give_back(job)
    assert back is not None
    assert (back.status, back.attempts, back.progress, back.stage) == ("queued", 0, 0, None)
    assert [job.id for job in store.waiting()] == [asked.id, later.id]


def test_cancelling(store: JobStore) -> None:
    waits = submit(store)
    cancelled = store.cancel(waits)
    assert cancelled is not None
    assert (cancelled.status, cancelled.error_code) == ("failed", "cancelled")
    submit(store)
    job = store.claim("w", 30.0)
    assert job is not None
    assert not store.cancel_wanted(job)
    asked = store.cancel(job)
    assert asked is not None
    assert asked.status == "in_progress"
    assert store.cancel_wanted(job)
    assert store.cancel(job) == asked
    (recovered,) = store.recover()
    assert (recovered.status, recovered.error_code) == ("failed", "cancelled")


def test_deleting(store: JobStore) -> None:
    gone = submit(store)
    removed: list[str] = []
    assert store.delete(gone, removed.append)
    assert removed == [gone.id]
    assert store.find(gone.id) is None
    submit(store)
    job = store.claim("w", 30.0)
    assert job is not None
    assert not store.delete(job, removed.append)  # its worker has its files
    assert store.find(job.id) is None
    assert store.page(None, None, 10) == []
    assert store.cancel_wanted(job)
    failed = store.fail(job, "cancelled", "Cancelled.")
    assert failed is not None
    store.remove_deleted(failed)
    assert store.known() == set()


def test_pages(store: JobStore) -> None:
    jobs = [submit(store, owner) for owner in ("ann", "bob", "ann", "ann")]
    newest = store.page("ann", None, 2)
    assert [job.id for job in newest] == [jobs[3].id, jobs[2].id]
    assert [job.id for job in store.page("ann", newest[-1].number, 2)] == [jobs[0].id]
    oldest = store.page(None, None, 3, newest_first=False)
    assert [job.id for job in oldest] == [job.id for job in jobs[:3]]


def test_what_is_old_expires_then_what_is_too_much(store: JobStore, clock: Clock) -> None:
    def finished() -> Job:
        submit(store)
        job = store.claim("w", 30.0)
        assert job is not None
        done = store.complete(job, replace(DONE, bytes=100))
        assert done is not None
        return done

    old = finished()
    clock.now += 40
    young = [finished() for _ in range(3) if not setattr(clock, "now", clock.now + 1)]
    waits = submit(store)
    assert store.expire() == []
    clock.now += 20
    assert [job.id for job in store.expire()] == [old.id]
    assert [job.id for job in store.expire(keep_bytes=250)] == [young[0].id]
    assert store.known() == {young[1].id, young[2].id, waits.id}
    assert [job.id for job in store.ended()] == [young[1].id, young[2].id]
    assert store.ended(older_than_s=1000) == []


def test_a_later_database_is_refused(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "later.db")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA user_version = 99")
    engine.dispose()
    with pytest.raises(DatabaseError, match="later version"):
        open_database(tmp_path / "later.db")


def test_what_a_dead_worker_had_begins_again_once_its_lease_is_over(
    store: JobStore, clock: Clock
) -> None:
    lost, alive = submit(store), submit(store)
    first, second = store.claim("dead", 30.0), store.claim("alive", 30.0)
    assert first is not None
    assert second is not None
    clock.now += 29
    assert store.heartbeat(second, 30.0) is not None
    assert store.recover_expired() == []
    clock.now += 2
    assert [job.id for job in store.recover_expired()] == [lost.id]
    assert store.recover_expired() == []
    assert store.complete(first, DONE) is None
    assert [job.id for job in store.running()] == [alive.id]


def test_of_many_servers_one_takes_a_delivery(database: Engine, store: JobStore) -> None:
    store.cancel(submit(store))
    outbox = Outbox(database)
    ((message,),) = outbox.due(outbox.now())
    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(outbox.take, [message] * 4))
    if database.dialect.name == "postgresql":  # SQLite has one server
        assert sorted(taken) == [False, False, False, True]
        assert outbox.due(outbox.now()) == []


def test_the_clock_is_the_databases(database: Engine) -> None:
    submitted = submit(JobStore(database, Outbox(database)))
    assert abs(submitted.created_at - time.time()) < 60


def test_many_workers_never_share_a_job(store: JobStore) -> None:
    asked = {submit(store).id for _ in range(40)}
    with ThreadPoolExecutor(8) as threads:
        claimed = list(threads.map(lambda n: store.claim(f"w{n}", 30.0), range(48)))
    found = [job.id for job in claimed if job is not None]
    assert sorted(found) == sorted(asked)


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order: states are sound, and ends are told once."""

    def __init__(self, place: Path | str) -> None:
        super().__init__()
        self.database = open_database(place)
        self.outbox = Outbox(self.database, ["https://hooks.example/x"])
        self.store = JobStore(self.database, self.outbox)
        self.asked: list[Job] = []
        self.claimed: list[Job] = []

    @rule()
    def ask(self) -> None:
        self.asked.append(submit(self.store))

    @rule()
    def claim(self) -> None:
        job = self.store.claim("w", 30.0)
        if job is not None:
            self.claimed.append(job)

    @rule(data=st.data(), how=st.sampled_from(["complete", "fail", "give_back", "heartbeat"]))
    def work(self, data: st.DataObject, how: str) -> None:
        if self.claimed:
            job = data.draw(st.sampled_from(self.claimed))
            if how == "complete":
                self.store.complete(job, DONE)
            elif how == "fail":
                self.store.fail(job, "broken", "It broke.")
            elif how == "give_back":
                self.store.give_back(job)
            else:
                self.store.heartbeat(job, 30.0)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.asked:
            self.store.cancel(data.draw(st.sampled_from(self.asked)))

    @rule()
    def restart(self) -> None:
        self.store.recover()

    @invariant()
    def sound(self) -> None:
        jobs = [self.store.find(job.id) for job in self.asked]
        due = itertools.chain.from_iterable(self.outbox.due(1e12, 1000))
        told = [delivery.body.decode() for delivery in due]
        for job in jobs:
            assert job is not None
            assert (job.worker is not None) == (job.status == "in_progress")
            assert (job.completed_at is not None) == job.ended
            assert (job.error_code is not None) == (job.status == "failed")
            assert job.attempts <= 2
            assert sum(job.id in body for body in told) == (1 if job.ended else 0)

    def teardown(self) -> None:
        self.database.dispose()


def test_lives(new_place: Callable[[], Path | str]) -> None:
    run_state_machine_as_test(
        lambda: Life(new_place()),
        settings=settings(
            max_examples=settings.default.max_examples // 10,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("text", ["", ".", "..", "../keys", "/etc", "video_", "video_ü", "a\0b"])
def test_only_ids_name_folders(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the id"):
        DataFolder(tmp_path).of_video(text)


def test_where_a_job_stood_is_known_after_its_end(store: JobStore, clock: Clock) -> None:
    deleted, expired, running = submit(store), submit(store), submit(store, "bob")
    store.delete(deleted, no_files)
    begun = store.claim("w", 30.0)
    assert begun is not None
    store.complete(begun, DONE)
    clock.now += 100.0
    assert [job.id for job in store.expire()] == [expired.id]
    begun = store.claim("w", 30.0)
    assert begun is not None
    store.delete(begun, no_files)
    for job in (deleted, expired, running):
        assert store.place(job.id, job.owner) == job.number
        assert store.place(job.id, "somebody else") is None


def test_where_jobs_stood_is_forgotten_in_the_end(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PLACES_KEPT", 3)
    jobs = [submit(store) for _ in range(5)]
    for job in jobs:
        store.delete(job, no_files)
    store.expire()
    places = [store.place(job.id, job.owner) for job in jobs]
    assert places == [None, None, *(job.number for job in jobs[2:])]


def test_images_count_against_the_limits(store: JobStore, clock: Clock) -> None:
    limits = QueueLimits(100, 100, input_bytes=1000)
    first = store.submit(new(input_bytes=600), limits)
    with pytest.raises(QueueFull, match="images of your waiting videos"):
        store.submit(new(input_bytes=401), limits)
    store.submit(new(), limits)  # one without images
    store.submit(new("bob", input_bytes=900), limits)
    failed = store.cancel(first)
    assert failed is not None
    assert failed.input_bytes == 0
    store.submit(new(input_bytes=1000), limits)


def test_images_count_against_what_is_kept(store: JobStore, clock: Clock) -> None:
    old, young = submit(store, input_bytes=500), submit(store, input_bytes=500)
    for _ in (old, young):
        clock.now += 1
        job = store.claim("w", 30.0)
        assert job is not None
        store.complete(job, DONE)  # 1,234 bytes
    assert store.expire(3468) == []
    waits = submit(store, input_bytes=1)
    assert [job.id for job in store.expire(3468)] == [old.id]
    assert store.known() == {young.id, waits.id}
