"""The worker process: takes jobs from a pipe, one after another, and reports on them.

An error of a request fails that request. An error that leaves the process unable to receive,
reply or compute ends the process, and the server starts another.
"""

import logging
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeVar

from entracte.config.wording import worded
from entracte.errors import DeviceFault, EntracteError, OutOfMemory

from .messages import (
    CancelJob,
    Done,
    EstimateReply,
    EstimateRequest,
    Failed,
    FromWorker,
    Heartbeat,
    Log,
    Ready,
    RunJob,
    Shutdown,
    StartupFailed,
    Warming,
)
from .protocol import MEMORY_WORDS, Finish, OpenRunner, Runner, WorkFailed

logger = logging.getLogger(__name__)

T = TypeVar("T")

HEARTBEAT_SECONDS = 2.0

# Exit code of a process that cannot continue.
EXIT_UNFIT = 3

# After this many unforeseen errors in a row the engine is assumed to be broken.
MAX_UNFORESEEN = 3

MISTAKE_WORDS = "The server made a mistake while it made this video."


class Channel:
    """The pipe to the server; several threads send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: FromWorker) -> None:
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(0)  # the server is gone, so the work is useless


class ChannelHandler(logging.Handler):
    """Sends log records to the server, which has the only log."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        trace = ""
        if record.exc_info:
            trace = "".join(traceback.format_exception(*record.exc_info))
        self._channel.send(Log(record.levelno, record.name, record.getMessage(), trace))


def serve(connection: Connection, open_runner: OpenRunner, nice: int = 0) -> None:
    """Run until told to stop, or until the server is gone."""
    # Signals are for the server, which sends Shutdown.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(nice)
    os.umask(0o077)  # videos are private to their owner
    channel = Channel(connection)
    logging.basicConfig(level=logging.WARNING, handlers=[ChannelHandler(channel)])
    inbox = Inbox(connection, channel)
    for loop in (inbox.receive, inbox.reply, partial(_send_heartbeats, channel)):
        threading.Thread(target=_or_end, args=(loop,), daemon=True).start()
    runner = _open(open_runner, channel)
    if runner is None:
        return
    inbox.runner = runner
    channel.send(Ready(runner.device))
    runs = JobRuns(runner, channel, inbox)
    while runs.fit and (job := inbox.jobs.get()) is not None:
        runs.run(job)
    runs.finish_all()
    if not runs.fit:
        os._exit(EXIT_UNFIT)  # to close what is broken may take forever
    runner.close()


def _or_end(loop: Callable[[], None]) -> None:
    """Run a thread's loop; end the process if it fails, because it would be useless without."""
    try:
        loop()
    except BaseException:  # panics of Rust libraries are not an Exception
        logger.exception("a thread of the worker ended")
    os._exit(EXIT_UNFIT)


def _open(open_runner: OpenRunner, channel: Channel) -> Runner | None:
    """The runner, warmed up; None if it cannot be opened, which the server is told."""
    try:
        runner = open_runner()
        channel.send(Warming())
        runner.warm_up(channel.send)
    except (DeviceFault, OutOfMemory, MemoryError):
        logger.exception("the engine cannot be opened now")
        os._exit(EXIT_UNFIT)  # another attempt may succeed
    except EntracteError as error:
        channel.send(StartupFailed(worded(error)))
        return None
    except BaseException as error:  # errors of a model's files would recur
        logger.exception("the engine cannot be opened")
        channel.send(StartupFailed(f"the model cannot be opened: {type(error).__name__}: {error}"))
        return None
    return runner


class JobRuns:
    """Runs jobs in the thread that calls, and finishes each in another, beside the next.

    fit: False once the process cannot run another job.
    """

    def __init__(self, runner: Runner, channel: Channel, inbox: "Inbox") -> None:
        self._runner = runner
        self._channel = channel
        self._inbox = inbox
        self._finisher = ThreadPoolExecutor(1, "finisher")
        self._unforeseen = 0  # errors in a row
        self.fit = True

    def run(self, job: RunJob) -> None:
        """Run a job until only its file is left to write. Sends how it ended, if it has."""

        def should_stop() -> bool:
            return job.job_id in self._inbox.cancelled

        finish = self._attempt(job, lambda: self._runner.run(job, self._channel.send, should_stop))
        if finish is not None:
            self._finisher.submit(self._finish, job, finish)

    def finish_all(self) -> None:
        """Wait until every job has ended."""
        self._finisher.shutdown()

    def _finish(self, job: RunJob, finish: Finish) -> None:
        done = self._attempt(job, finish)
        if done is not None:
            self._unforeseen = 0
            self._ended(job, done)

    def _attempt(self, job: RunJob, part: Callable[[], T]) -> T | None:
        """Do a part of a job; None, and its end is sent, if that fails."""
        try:
            return part()
        except WorkFailed as failure:
            code, message = failure.code, failure.message
            self._unforeseen = 0
            self._ended(job, Failed(job.job_id, code, message, failure.detail, failure.fatal))
        except BaseException as error:  # this request's failure; panics are not an Exception
            logger.exception("a video failed for a reason that was not foreseen")
            detail = f"{type(error).__name__}: {error}"
            failed = Failed(job.job_id, "internal_error", MISTAKE_WORDS, detail)
            if isinstance(error, MemoryError):
                failed = Failed(job.job_id, "out_of_memory", MEMORY_WORDS, detail, fatal=True)
            self._unforeseen += 1
            self._ended(job, failed)
        return None

    def _ended(self, job: RunJob, end: Done | Failed) -> None:
        self._inbox.cancelled.discard(job.job_id)
        if (isinstance(end, Failed) and end.fatal) or self._unforeseen == MAX_UNFORESEEN:
            self.fit = False
            self._inbox.jobs.put(None)  # the other thread may wait for a job
        self._channel.send(end)


class Inbox:
    """Receives messages while a job runs.

    Estimates are computed one after another in their own thread, so that nothing else waits for
    them. jobs: to run, None at the end. cancelled: ids of jobs to stop.
    """

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self._connection = connection
        self._channel = channel
        self._requests: queue.SimpleQueue[EstimateRequest] = queue.SimpleQueue()
        self.jobs: queue.SimpleQueue[RunJob | None] = queue.SimpleQueue()
        self.runner: Runner | None = None
        self.cancelled: set[str] = set()

    def receive(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # the server is gone: free the device for the next one
            match message:
                case RunJob():
                    self.jobs.put(message)
                case CancelJob(job_id):
                    self.cancelled.add(job_id)
                case EstimateRequest():
                    self._requests.put(message)
                case Shutdown():
                    self.jobs.put(None)

    def reply(self) -> None:
        while True:
            self._channel.send(self._estimate(self._requests.get()))

    def _estimate(self, request: EstimateRequest) -> EstimateReply:
        if self.runner is None:
            return EstimateReply(request.number)
        try:
            return EstimateReply(request.number, self.runner.estimate(request.request))
        except WorkFailed as refused:
            return EstimateReply(request.number, None, refused.code, refused.message)
        except BaseException:  # the request may be anything; panics are not an Exception
            logger.exception("an estimate failed")
            return EstimateReply(request.number)


def _send_heartbeats(channel: Channel) -> None:
    pause = threading.Event()
    while not pause.wait(HEARTBEAT_SECONDS):
        channel.send(Heartbeat())
