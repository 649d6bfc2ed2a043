"""The supervisor of a worker: a thread that keeps one process running.

All its waits are bounded: for the process, which may hang, and for the database, whose failures
cost time but not the worker.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import ParamSpec, TypeVar

from structlog.typing import FilteringBoundLogger

from entracte.request import Request
from entracte.serve.background import Trouble
from entracte.serve.events import EventBus, ServerEvent
from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.job import CANCELLED, Job
from entracte.serve.jobs.store import JobStore

from .estimates import PendingEstimates
from .messages import (
    CancelJob,
    Done,
    EstimateReply,
    Failed,
    FromWorker,
    Heartbeat,
    Log,
    MemoryReport,
    PreviewImage,
    Ready,
    RunJob,
    Shutdown,
    StartupFailed,
    Step,
    Warming,
)
from .process_handle import KILL_SECONDS, ProcessHandle
from .protocol import OpenRunner, WorkFailed
from .running_job import RunningJob
from .state import WorkerSnapshot, WorkerState

POLL_SECONDS = 0.2

# A process that has sent nothing for this long is considered dead, even if it still exists.
LEASE_SECONDS = 30.0

# How long a process may take to stop on its own.
STOP_PATIENCE = 10.0

# Seconds before a process is started again, by the number that died before they were ready.
BACK_OFF = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)

# After this many died before any was ever ready, later ones would too.
MAX_OPENINGS = 5

# Files that are fetched or kept at once.
FILE_THREADS = 4

CRASH_WORDS = "The worker's process died while it made this video"


P = ParamSpec("P")
T = TypeVar("T")


class Inline(Executor):
    """Calls functions at once, in the thread that submits them."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # of any kind, for whoever asks for the result
            done.set_exception(error)
        return done


class Supervisor(threading.Thread):
    """work_of: makes the message that starts a job; keep: keeps the file that it has written; both
    raise WorkFailed, and take a while if the files are far. ended: called with every job that ended
    here. look_s: how often an idle worker looks for work that it was not woken for.

    There is one job on the device, and beside it there may be others whose files are being written.
    A crash fails the former, the latter begin again, and the next job gets a new process. If the
    database fails, outcomes are kept and stored later.
    """

    def __init__(
        self,
        name: str,
        device: str,
        open_runner: OpenRunner,
        store: JobStore,
        events: EventBus,
        work_of: Callable[[Job], RunJob],
        keep: Callable[[Job], None],
        ended: Callable[[Job, Done | None], None],
        log: FilteringBoundLogger,
        running_per_owner: int | None = None,
        nice: int = 0,
        look_s: float = 0.0,
        far: bool = False,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._open_runner = open_runner
        self._store = store
        self._events = events
        self._work_of = work_of
        self._keep = keep
        self._files: Executor = (
            ThreadPoolExecutor(FILE_THREADS, f"{name} files") if far else Inline()
        )
        self._ended = ended
        self._log = log.bind(worker=name)
        self._running_per_owner = running_per_owner
        self._nice = nice
        self._look_s = look_s
        self._look_at = 0.0
        self._view = WorkerSnapshot(name, device, "starting")
        self._process: ProcessHandle | None = None
        self._jobs: dict[str, RunningJob] = {}  # by id, in the order of their starts
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._estimates = PendingEstimates()
        self._was_ready = self._was_ever_ready = False
        self._store_at = 0.0  # when to query the store again
        self.trouble = Trouble(self._log)
        self.startup_error: str | None = None

    @property
    def view(self) -> WorkerSnapshot:
        """A snapshot of the worker, from any thread."""
        current = self._on_device
        if current is None:
            return self._view
        job = current.job
        return replace(self._view, video_id=job.id, owner=job.owner, stage=current.stage)

    @property
    def _on_device(self) -> RunningJob | None:
        return next((job for job in tuple(self._jobs.values()) if not job.writing), None)

    @property
    def _unended(self) -> list[RunningJob]:
        return [job for job in self._jobs.values() if job.ending is None]

    def estimate(self, request: Request, timeout: float) -> EstimateReply | None:
        """How long a request would take; None if the worker does not reply in time."""
        process = self._process
        if process is None or self._view.state not in ("ready", "busy"):
            return None
        return self._estimates.request(process.send, request, timeout)

    def wake(self) -> None:
        """Look for work now, from any thread."""
        self._look_at = 0.0
        process = self._process
        if process is not None and self._takes_work and self._on_device is None:
            process.wake()

    def drain(self) -> None:
        """Accept no further job."""
        self._draining.set()

    def stop(self) -> None:
        """Return the running jobs to the queue, and end."""
        self._draining.set()
        self._stopping.set()

    def kill(self) -> None:
        """Kill the process, if the thread cannot."""
        process = self._process
        if process is not None:
            process.kill()

    @property
    def idle(self) -> bool:
        return not self._jobs

    def run(self) -> None:
        deaths = 0
        while not self._stopping.wait(BACK_OFF[min(deaths, len(BACK_OFF) - 1)]):
            try:
                how = self._run_process()
            except Exception as error:  # of any kind: a worker needs its supervisor
                how = type(error).__name__
                self._log.exception("the supervisor failed; the worker starts again")
            deaths = 0 if self._was_ready else deaths + 1
            if deaths >= MAX_OPENINGS and not self._was_ever_ready:
                self.startup_error = f"the worker died {deaths} times before it was ready ({how})"
            if self.startup_error is not None:
                self._show("failed")
                return
            self._was_ready = False
            self._view = replace(self._view, memory=None, restarts=self._view.restarts + 1)
            self._show("restarting")
            self._settle()
        self._show("stopped")

    def _run_process(self) -> str:
        """Run one process from start to end; returns how it ended."""
        process = ProcessHandle(self.name, self._open_runner, self._nice)
        self._process = process
        self._log.info("worker started", pid=process.pid)
        try:
            self._supervise(process)
        finally:
            process.end(0)
            self._process = None
            self._estimates.forget()
            for job in self._unended:
                job.lose("worker_crashed", f"{CRASH_WORDS}.")
        return process.how_it_died()

    def _supervise(self, process: ProcessHandle) -> None:
        """Handle messages and find work until the process has ended."""
        received_at = time.monotonic()
        while not self._stopping.is_set():
            received = process.receive(POLL_SECONDS)
            if received is None:
                self._died(process)
                return
            if received:
                received_at = time.monotonic()
            silence = time.monotonic() - received_at
            if silence > LEASE_SECONDS:
                process.kill()
            if silence > LEASE_SECONDS + KILL_SECONDS:  # the system cannot end it
                self._died(process)
                return
            for message in received:
                self._handle(message)
            self._sync_files(process)
            self._sync_store(process)
        self._shut_down(process)

    def _handle(self, message: FromWorker) -> None:
        match message:
            case Warming():
                self._show("warming")
            case Ready(device):
                self._view = replace(self._view, device=device)
                self._log.info("worker ready", device=device)
                self._was_ready = self._was_ever_ready = True
                self._show("ready")
            case StartupFailed(words):
                self.startup_error = words
                self._log.error("worker cannot start", why=words)
            case Log(level, name, text, trace):
                more = {"exception": trace} if trace else {}
                self._log.log(level, text, logger=name, **more)
            case MemoryReport():
                self._view = replace(self._view, memory=message)
                self._events.publish(ServerEvent("engine"))
            case EstimateReply():
                self._estimates.resolve(message)
            case Heartbeat():
                for job in self._jobs.values():
                    job.heartbeat()
            case Step(job_id) | PreviewImage(job_id) | Done(job_id) | Failed(job_id):
                if job_id in self._jobs:  # else it is no longer ours
                    self._handle_job(self._jobs[job_id], message)

    def _handle_job(self, job: RunningJob, message: Step | PreviewImage | Done | Failed) -> None:
        match message:
            case Step():
                job.advance(message)
            case PreviewImage(video_id, step, image):
                owner = job.job.owner
                self._events.publish(ServerEvent("preview", video_id, owner, image, step))
            case Done():
                job.done = message
                job.keeping = self._files.submit(self._keep, job.job)
            case Failed():
                self._failed(job, message)
                if message.fatal:
                    self._show("restarting")

    def _failed(self, job: RunningJob, why: Failed) -> None:
        self._log.warning("video failed", video=job.job.id, code=why.code, detail=why.detail)
        job.fail(why.code, why.message)

    def _died(self, process: ProcessHandle) -> None:
        process.end(0)
        if self.startup_error is not None:
            return  # it ended as it should
        how = process.how_it_died()
        self._log.error("worker died", how=how)
        for job in self._unended:
            # It may have died before it received the job, and hardly of writing a file.
            if job.stage is None or job.writing:
                job.lose("worker_crashed", f"{CRASH_WORDS} ({how}).")
            else:
                job.fail("worker_crashed", f"{CRASH_WORDS} ({how}).")

    def _sync_files(self, process: ProcessHandle | None) -> None:
        """Start the jobs whose inputs are there, and end those whose files are kept."""
        for job in self._unended:
            try:
                if job.work is not None and job.work.done():
                    work, job.work = job.work.result(), None
                    if process is not None:
                        process.send(work)
                if job.keeping is not None and job.keeping.done():
                    job.keeping.result()
                    job.complete()
            except WorkFailed as failure:
                self._failed(job, Failed(job.job.id, failure.code, failure.message, failure.detail))

    def _sync_store(self, process: ProcessHandle) -> None:
        """Store what was received, and look for work. A database failure costs time, but not the
        worker.
        """
        if time.monotonic() < self._store_at:
            return
        try:
            if self.trouble.words is not None and self._on_device is None:
                self._recover()
            for job in list(self._jobs.values()):
                self._note(process, job)
            if self._on_device is None:
                if self._view.state == "busy":
                    self._show("ready")
                if self._takes_work and time.monotonic() >= self._look_at:
                    self._begin_next(process)
        except DatabaseError as error:
            self._store_at = time.monotonic() + self.trouble.failed(error)
        else:
            self.trouble.over()

    @property
    def _takes_work(self) -> bool:
        return self._view.state == "ready" and not self._draining.is_set()

    def _recover(self) -> None:
        """Requeue a job that was claimed just as the database failed, so that we never got it."""
        for job in self._store.recover(self.name, self._jobs):
            self._log.warning("video taken up again", video=job.id, status=job.status)

    def _note(self, process: ProcessHandle, running: RunningJob) -> None:
        if running.ending is not None:
            self._finish(running)
            return
        if (job := running.note()) is not None:
            self._publish(job)
        if running.to_be_cancelled():
            process.send(CancelJob(running.job.id))

    def _begin_next(self, process: ProcessHandle) -> None:
        self._look_at = time.monotonic() + self._look_s  # before the claim, or a wake is lost
        job = self._store.claim(self.name, LEASE_SECONDS, self._running_per_owner)
        if job is None:
            return
        self._look_at = 0.0
        self._jobs[job.id] = running = RunningJob(job, self._store, LEASE_SECONDS, self._look_s / 5)
        self._log.info("video started", video=job.id, attempt=job.attempts)
        self._publish(job)
        self._show("busy")
        running.work = self._files.submit(self._work_of, job)
        self._sync_files(process)

    def _finish(self, running: RunningJob) -> None:
        """Store how the job ended. Raises DatabaseError."""
        assert running.ending is not None
        job = running.ending.note()
        del self._jobs[running.job.id]
        if job is None:
            self._log.warning("video was taken away", video=running.job.id)
            return
        if job.ended:
            self._ended(job, running.ending.done)
        if not job.deleted:
            self._publish(job)
        if job.status == "queued":
            self._events.publish(ServerEvent("queued", owner=""))

    def _settle(self) -> None:
        """Store how the last process's jobs ended, later if the database fails."""
        for job in list(self._jobs.values()):
            try:
                self._finish(job)
            except DatabaseError as error:
                self.trouble.failed(error)

    def _shut_down(self, process: ProcessHandle) -> None:
        for job in self._unended:
            process.send(CancelJob(job.job.id))
        process.send(Shutdown())
        deadline = time.monotonic() + STOP_PATIENCE
        while self._unended and time.monotonic() < deadline:
            received = process.receive(POLL_SECONDS)
            if received is None:
                break
            for message in received:
                # A job that we stopped ourselves was not cancelled.
                if not isinstance(message, Failed) or message.code != CANCELLED:
                    self._handle(message)
            self._sync_files(None)
        process.end(max(0.0, deadline - time.monotonic()))
        for job in self._unended:
            job.give_back()
            self._log.info("video goes back to the queue", video=job.job.id)
        self._settle()

    def _show(self, state: WorkerState) -> None:
        self._view = replace(self._view, state=state)
        self._events.publish(ServerEvent("engine"))

    def _publish(self, job: Job) -> None:
        self._events.publish(ServerEvent("video", job.id, job.owner))
