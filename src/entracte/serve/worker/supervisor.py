"""A worker's supervisor: a thread that keeps one process at work, whatever happens to it."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from structlog.typing import FilteringBoundLogger

from entracte.serve.feed import Feed, News
from entracte.serve.jobs.database import DatabaseError
from entracte.serve.jobs.job import CANCELLED, Job
from entracte.serve.jobs.store import JobStore

from .current import CurrentJob
from .maker import OpenMaker, WorkFailed
from .messages import (
    Answer,
    Ask,
    Beat,
    Cancel,
    Done,
    Failed,
    FromWorker,
    Log,
    Memory,
    Preview,
    Ready,
    Refused,
    Step,
    Stop,
    Warming,
    Work,
)
from .process_handle import ProcessHandle
from .state import WorkerState, WorkerView

POLL_SECONDS = 0.2

# A process that has told nothing for so long is dead, though the system does not know it.
LEASE_SECONDS = 30.0

# A database that failed may have room, or its lock, in so many seconds.
DATABASE_SECONDS = 2.0

# How long a process may take to stop by itself.
STOP_PATIENCE = 10.0

# Waits before a process is started again, after so many that died before they were ready.
BACK_OFF = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)


class Supervisor(threading.Thread):
    """work_of: what a worker is told of a job; raises WorkFailed. ended: called with every job that
    ended here.

    A crash fails the job that was being made; the next one gets a new process.
    """

    def __init__(
        self,
        name: str,
        device: str,
        open_maker: OpenMaker,
        store: JobStore,
        feed: Feed,
        work_of: Callable[[Job], Work],
        ended: Callable[[Job, Done | None], None],
        log: FilteringBoundLogger,
        running_per_owner: int | None = None,
        nice: int = 0,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._open_maker = open_maker
        self._store = store
        self._feed = feed
        self._work_of = work_of
        self._ended = ended
        self._log = log.bind(worker=name)
        self._running_per_owner = running_per_owner
        self._nice = nice
        self._view = WorkerView(name, device, "starting")
        self._process: ProcessHandle | None = None
        self._current: CurrentJob | None = None
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._asked: dict[int, Future[float | None]] = {}
        self._numbers = itertools.count()
        self._was_ready = False
        self.refused: str | None = None

    @property
    def view(self) -> WorkerView:
        """The worker now; from any thread."""
        current = self._current
        if current is None:
            return self._view
        job = current.job
        return replace(self._view, video_id=job.id, owner=job.owner, stage=current.stage)

    def ask(self, request: Mapping[str, Any], timeout: float) -> float | None:
        """The seconds a request would take; None where nobody can tell in time."""
        process = self._process
        if process is None or self._view.state not in ("ready", "busy"):
            return None
        number, answer = next(self._numbers), Future[float | None]()
        self._asked[number] = answer
        process.say(Ask(number, request))
        try:
            return answer.result(timeout)
        except TimeoutError:
            return None
        finally:
            self._asked.pop(number, None)

    def drain(self) -> None:
        """Take no further job."""
        self._draining.set()

    def stop(self) -> None:
        """Give the current job back to the queue, and end."""
        self._draining.set()
        self._stopping.set()

    @property
    def idle(self) -> bool:
        return self._current is None

    def run(self) -> None:
        failures = 0
        while not self._stopping.wait(BACK_OFF[min(failures, len(BACK_OFF) - 1)]):
            self._process = ProcessHandle(self.name, self._open_maker, self._nice)
            self._log.info("worker started", pid=self._process.pid)
            try:
                self._begin_again()
                self._look_after(self._process)
            except DatabaseError as error:
                self._log.error("the database failed; the worker starts anew", error=str(error))
                self._process.kill()
                self._process.end(0)
                self._stopping.wait(DATABASE_SECONDS)
            self._process = None
            if self.refused is not None:
                self._show("failed")
                return
            failures = 0 if self._was_ready else failures + 1
            self._was_ready = False
            self._view = replace(self._view, memory=None, restarts=self._view.restarts + 1)
            self._show("restarting")
        self._show("stopped")

    def _begin_again(self) -> None:
        """What the last process had when the database failed is made by this one, or fails."""
        if self._current is not None:
            words = "The server could not note that this video was made."
            self._finish(
                self._current, self._store.retry(self._current.job, "storage_failed", words)
            )

    def _look_after(self, process: ProcessHandle) -> None:
        """Until the process has ended."""
        heard_at = time.monotonic()
        while not self._stopping.is_set():
            heard = process.hear(POLL_SECONDS)
            if heard is None:
                self._died(process)
                return
            if heard:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > LEASE_SECONDS:
                process.kill()
            for message in heard:
                self._hear(message)
            if self._current is not None:
                self._look_at_cancel(process, self._current)
            elif self._view.state == "ready" and not self._draining.is_set():
                self._begin_next(process)
        self._shut_down(process)

    def _begin_next(self, process: ProcessHandle) -> None:
        job = self._store.claim(self.name, LEASE_SECONDS, self._running_per_owner)
        if job is None:
            return
        self._current = CurrentJob(job, self._store, LEASE_SECONDS)
        self._log.info("video started", video=job.id, attempt=job.attempts)
        self._tell_of(job)
        self._show("busy")
        try:
            process.say(self._work_of(job))
        except WorkFailed as failure:
            self._failed(
                self._current, Failed(job.id, failure.code, failure.message, failure.detail)
            )

    def _hear(self, message: FromWorker) -> None:
        current = self._current
        match message:
            case Warming():
                self._show("warming")
            case Ready(device):
                self._view = replace(self._view, device=device)
                self._log.info("worker ready", device=device)
                self._was_ready = True
                self._show("ready")
            case Refused(words):
                self.refused = words
                self._log.error("worker refuses", why=words)
            case Log(level, name, text):
                self._log.log(level, text, logger=name)
            case Memory():
                self._view = replace(self._view, memory=message)
                self._feed.tell(News("engine"))
            case Answer(number, seconds):
                if (answer := self._asked.get(number)) is not None:
                    answer.set_result(seconds)
            case Beat() if current is not None:
                current.beat()
            case Step() if current is not None:
                if (job := current.advance(message)) is not None:
                    self._tell_of(job)
            case Preview(video_id, step, image) if current is not None:
                owner = current.job.owner
                self._feed.tell(News("preview", video_id, owner, image, step))
            case Done() if current is not None:
                job = self._store.complete(current.job, current.completion(message))
                self._finish(current, job, message)
            case Failed() if current is not None:
                self._failed(current, message)
                if message.fatal:
                    self._show("restarting")
            case _:
                pass  # of work that is no longer ours

    def _died(self, process: ProcessHandle) -> None:
        process.end(0)
        if self.refused is not None:
            return  # it ended as it should
        how = process.how_it_died()
        self._log.error("worker died", how=how)
        current = self._current
        if current is None:
            return
        words = f"The worker's process died while it made this video ({how})."
        if current.stage is None:  # it may have died before it heard of the video
            self._finish(current, self._store.retry(current.job, "worker_crashed", words))
        else:
            self._fail(current, "worker_crashed", words)

    def _failed(self, current: CurrentJob, why: Failed) -> None:
        self._log.warning("video failed", video=current.job.id, code=why.code, detail=why.detail)
        self._fail(current, why.code, why.message)

    def _fail(self, current: CurrentJob, code: str, words: str) -> None:
        self._finish(current, self._store.fail(current.job, code, words))

    def _finish(self, current: CurrentJob, job: Job | None, done: Done | None = None) -> None:
        """The worker is free. job: as it ended; None where it had been taken away."""
        self._current = None
        if self._view.state == "busy":
            self._show("ready")
        if job is None:
            self._log.warning("video was taken away", video=current.job.id)
            return
        if job.ended:
            self._ended(job, done)
        if not job.deleted:
            self._tell_of(job)

    def _look_at_cancel(self, process: ProcessHandle, current: CurrentJob) -> None:
        if current.to_be_cancelled():
            process.say(Cancel(current.job.id))

    def _shut_down(self, process: ProcessHandle) -> None:
        current = self._current
        if current is not None:
            process.say(Cancel(current.job.id))
        process.say(Stop())
        deadline = time.monotonic() + STOP_PATIENCE
        while current is not None and self._current is current and time.monotonic() < deadline:
            heard = process.hear(POLL_SECONDS)
            if heard is None:
                break
            for message in heard:
                # A job that we stopped ourselves is no cancelled one.
                if not isinstance(message, Failed) or message.code != CANCELLED:
                    self._hear(message)
        process.end(max(0.0, deadline - time.monotonic()))
        if current is not None and self._current is current:
            self._current = None
            job = self._store.give_back(current.job)
            self._log.info("video goes back to the queue", video=current.job.id)
            if job is not None:
                self._tell_of(job)

    def _show(self, state: WorkerState) -> None:
        self._view = replace(self._view, state=state)
        self._feed.tell(News("engine"))

    def _tell_of(self, job: Job) -> None:
        self._feed.tell(News("video", job.id, job.owner))
