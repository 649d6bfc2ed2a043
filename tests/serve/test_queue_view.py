"""Places in the queue, and when a video will be there."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from entracte.serve.jobs.job import Job
from entracte.serve.queue_view import UNKNOWN_SECONDS, predict_queue, remaining
from entracte.serve.workers.estimates import LatencyCorrection

JOB = Job(
    id="a",
    owner="ann",
    model="m",
    prompt="p",
    size="64x64",
    seconds="1",
    settings={},
    estimated_s=10.0,
)
NOW = 1000.0


def waiting(*seconds: float | None) -> list[Job]:
    return [replace(JOB, id=str(n), estimated_s=each) for n, each in enumerate(seconds)]


def running(left: float | None, estimated: float | None = 10.0, since: float = 4.0) -> Job:
    return replace(
        JOB,
        id="r",
        status="in_progress",
        seconds_left=left,
        estimated_s=estimated,
        started_at=NOW - since,
    )


def test_what_remains_is_said_or_estimated() -> None:
    assert remaining(running(2.5), NOW) == 2.5
    assert remaining(running(None), NOW) == 6.0
    assert remaining(running(None, since=50.0), NOW) == 1.0
    assert remaining(running(None, estimated=None), NOW) == UNKNOWN_SECONDS - 4


def test_one_worker_makes_them_one_after_another() -> None:
    queue = predict_queue(waiting(10.0, None, 5.0), [running(3.0)], 1, NOW)
    assert [place.position for place in queue.places.values()] == [1, 2, 3]
    etas = [place.eta_s for place in queue.places.values()]
    assert etas == [13.0, 13.0 + UNKNOWN_SECONDS, 18.0 + UNKNOWN_SECONDS]
    assert (queue.queued, queue.running, queue.next_s, queue.seconds) == (3, 1, 3.0, etas[-1])


def test_idle_workers_begin_at_once() -> None:
    queue = predict_queue(waiting(10.0, 4.0, 1.0), [], 2, NOW)
    assert [place.eta_s for place in queue.places.values()] == [10.0, 4.0, 5.0]
    assert queue.seconds == 5.0
    assert predict_queue([], [], 2, NOW).seconds == 0.0


@given(st.lists(st.floats(0.1, 100)), st.lists(st.floats(0.1, 100), max_size=4), st.integers(1, 4))
def test_more_workers_are_never_later(
    seconds: list[float], left: list[float], workers: int
) -> None:
    jobs, busy = waiting(*seconds), [running(each) for each in left[:workers]]
    few, many = predict_queue(jobs, busy, workers, NOW), predict_queue(jobs, busy, workers + 1, NOW)
    assert many.seconds <= few.seconds + 1e-9


def test_experience_corrects_by_the_middle_of_late_ratios() -> None:
    correction = LatencyCorrection()
    assert correction.corrected(10.0) == 10.0
    assert correction.corrected(None) is None
    correction.learn(None, 5.0)
    assert correction.corrected(10.0) == 10.0
    for took in (15.0, 15.0, 400.0):
        correction.learn(10.0, took)
    assert correction.corrected(4.0) == 6.0
    for _ in range(10):
        correction.learn(10.0, 5.0)
    assert correction.corrected(4.0) == 2.0
