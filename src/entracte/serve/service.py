"""The service behind HTTP: data folder, queue, workers and their limits."""

import math
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from structlog.typing import FilteringBoundLogger

from entracte.checkpoints.model_header import ModelHeader
from entracte.config.residency import parse_size
from entracte.config.serve import ServeSettings
from entracte.errors import RequestError
from entracte.serve.webhooks.dispatcher import Dispatcher, webhook_secret

from .background import Housekeeping, Loop, Probe, Reaper
from .data_folder import DataFolder, DataFolderError
from .errors import Draining, RequestRefused
from .events import EventBus, ServerEvent
from .jobs.admission import QueueLimits
from .jobs.database import open_database
from .jobs.job import Job
from .jobs.outbox import Outbox
from .jobs.store import JobStore
from .keys import KeyStore
from .loras import LoraFolder
from .metrics import Metrics
from .outbound.policy import Outbound
from .queue_view import QueueReader
from .sessions import SessionStore
from .submission import Submission, from_request, refusal, request_of
from .workers.messages import Done, RunJob
from .workers.process_handle import KILL_SECONDS
from .workers.protocol import OpenRunner, WorkFailed
from .workers.state import WorkerSnapshot
from .workers.supervisor import LEASE_SECONDS, STOP_PATIENCE, Supervisor

DAY = 86_400.0

# How long workers may take to stop before they are killed: a little more than they are told.
STOP_SECONDS = STOP_PATIENCE + KILL_SECONDS

# How long a client waits for an estimate.
ESTIMATE_SECONDS = 1.0

# From a worker's device to what opens its engine in the worker process.
RunnerOf = Callable[[str], OpenRunner]


class Service:
    """Owns the data folder, the queue and the workers. `start` it, and finally `stop` it.

    model: what is served, whose defaults requests take. runner_of: opens its engines.
    """

    def __init__(
        self,
        settings: ServeSettings,
        model: ModelHeader,
        runner_of: RunnerOf,
        log: FilteringBoundLogger,
    ) -> None:
        self.settings = settings
        self.model = model
        self.log = log
        self.folder = DataFolder(settings.data_folder, settings.database)
        self.folder.prepare()
        self._database = open_database(self.folder.place)
        # Of a database that others use too, no server knows who lives; leases tell.
        self._alone = self._database.dialect.name == "sqlite"
        self.folder.make_videos()
        self.keys = KeyStore(self._database)
        self.sessions = SessionStore(self._database, self.keys)
        outbox = Outbox(self._database, settings.webhook_url)
        keep_s = None if math.isinf(settings.keep_days) else settings.keep_days * DAY
        self.store = JobStore(self._database, outbox, keep_s)
        self.events = EventBus()
        self.limits = QueueLimits(
            settings.max_queued, settings.max_queued_per_key, settings.max_queued_bytes
        )
        devices = settings.devices or (settings.device,)
        self.supervisors = [
            self._supervisor(number, device, runner_of(device))
            for number, device in enumerate(devices)
        ]
        self.queue = QueueReader(self.store, len(self.supervisors))
        self.metrics = Metrics(self.queue.now, self.workers)
        self.outbound = Outbound(settings)
        self.loras = LoraFolder(settings.lora_folder, log)
        keep_bytes = parse_size("keep_size", settings.keep_size)
        secret = webhook_secret(self.folder, self._database)
        self._threads: tuple[Loop, ...] = (
            Housekeeping(self.store, self.folder, self.events, log, keep_bytes),
            Dispatcher(outbox, self.outbound, secret, self.metrics, log),
            Probe(self.store, log),
        )
        if not self._alone:
            self._threads += (Reaper(self.store, self._recovered, LEASE_SECONDS, log),)
        self.draining = threading.Event()
        self._open = ExitStack()

    def start(self) -> None:
        """Resume what an earlier server left; raises DataFolderError if one still runs."""
        if self._alone:
            self._open.enter_context(self.folder.locked())
            for job in self.store.recover():
                self.log.warning("video taken up again", video=job.id, status=job.status)
            removed = self.folder.sweep(self.store.known(failed=False))
            if removed:
                self.log.info("files without a video removed", folders=removed)
        for supervisor in self.supervisors:
            supervisor.start()
        for thread in self._threads:
            thread.start()

    def drain(self, seconds: float) -> None:
        """Accept no new videos, and give the running ones that long to finish."""
        self.draining.set()
        for supervisor in self.supervisors:
            supervisor.drain()
        self.events.publish(ServerEvent("engine"))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(each.idle for each in self.supervisors):
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop all workers; unfinished videos return to the queue."""
        self.draining.set()
        self.events.close()
        for thread in self._threads:
            thread.stop()
        for supervisor in self.supervisors:
            supervisor.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for supervisor in self.supervisors:
            if supervisor.ident is not None:  # else it was never started
                supervisor.join(max(0.0, deadline - time.monotonic()))
            supervisor.kill()
        self._database.dispose()
        self._open.close()

    def workers(self) -> list[WorkerSnapshot]:
        return [each.view for each in self.supervisors]

    @property
    def startup_error(self) -> str | None:
        """Why no engine can be opened; None if one can."""
        words = [each.startup_error for each in self.supervisors]
        return words[0] if all(words) else None

    @property
    def trouble(self) -> str | None:
        """What keeps the server from working, apart from workers that are not ready. Does not
        block.
        """
        threads: tuple[Loop | Supervisor, ...] = (*self._threads, *self.supervisors)
        for thread in threads:
            if thread.ident is not None and not thread.is_alive() and self.startup_error is None:
                return f"The server's thread {thread.name} has ended."
            if thread.trouble.words is not None:
                return f"The server's {thread.name} cannot work: {thread.trouble.words}."
        return None

    @property
    def opened(self) -> bool:
        """Whether an engine has opened its model."""
        return any(each.state in ("warming", "ready", "busy") for each in self.workers())

    @property
    def ready(self) -> bool:
        """Whether a video requested now can be made."""
        able = any(each.state in ("ready", "busy") for each in self.workers())
        return able and not self.draining.is_set() and self.trouble is None

    def estimate(self, submission: Submission, images: int = 0) -> float | None:
        """The seconds that a video would take, estimated by the first worker that can.

        Raises RequestRefused if a worker would refuse the request.
        """
        still = {"path": "-", "strength": 1.0}
        try:
            request = request_of(
                submission.prompt,
                submission.settings,
                self.loras.paths(),
                [{**still, "frame": number} for number in range(images)],
            )
        except RequestError as error:
            raise from_request(error) from None
        for supervisor in self.supervisors:
            answer = supervisor.estimate(request, ESTIMATE_SECONDS)
            if answer is None:
                continue
            if answer.code:
                raise refusal(answer.code, answer.message)
            if answer.seconds is not None:
                return answer.seconds
        return None

    def submit(self, new: Job) -> Job:
        """Add a job to the queue.

        Raises QueueFull, KeyReused, OwnerGone, and Draining if the server is stopping.
        """
        if self.draining.is_set():
            raise Draining("the server is stopping")
        job = self.store.submit(new, self.limits)
        self.queue.invalidate()
        if job.id == new.id:
            self.log.info(
                "video queued", video=job.id, size=job.size, frames=job.settings["num_frames"]
            )
            self.events.publish(ServerEvent("video", job.id, job.owner))
        return job

    def cancel(self, job: Job) -> Job | None:
        cancelled = self.store.cancel(job)
        self.queue.invalidate()
        if cancelled is not None:
            if job.status == "queued" and cancelled.ended:
                self.metrics.ended(cancelled)
                self.forget_files(job.id)
            self.events.publish(ServerEvent("video", job.id, job.owner))
        return cancelled

    def delete(self, job: Job) -> None:
        """Delete a video; the files of a running one are removed once its worker has stopped.

        Raises DataFolderError if files cannot be removed; the video is kept then.
        """
        self.store.delete(job, self.folder.remove)
        self.queue.invalidate()
        self.events.publish(ServerEvent("deleted", job.id, job.owner))

    def _recovered(self, job: Job) -> None:
        self.log.warning("video taken up again", video=job.id, status=job.status)
        self.queue.invalidate()
        if job.ended:
            self.metrics.ended(job)
            self.forget_files(job.id)
        self.events.publish(ServerEvent("video", job.id, job.owner))

    def forget_files(self, video_id: str) -> None:
        """Remove files that no video needs any more; the next start removes what is left."""
        try:
            self.folder.remove(video_id)
        except DataFolderError as error:
            self.log.error("files not removed", video=video_id, why=str(error))

    def _supervisor(self, number: int, device: str, open_runner: OpenRunner) -> Supervisor:
        return Supervisor(
            f"worker-{number}",
            device,
            open_runner,
            self.store,
            self.events,
            self._work_of,
            self._ended,
            self.log,
            self.settings.max_running_per_key,
            self.settings.nice,
        )

    def _work_of(self, job: Job) -> RunJob:
        images = [
            {"path": self.folder.image(job.id, number), **image}
            for number, image in enumerate(job.images)
        ]
        loras = self.loras.paths()
        try:
            request = request_of(job.prompt, job.settings, loras, images)
        except RequestError as error:
            raise WorkFailed("invalid_request", str(error)) from error
        except RequestRefused as error:  # its LoRA is gone
            raise WorkFailed(error.code or "invalid_request", error.message) from None
        try:
            self.folder.make_room(job.id)
        except DataFolderError as error:
            words = "The server cannot write the video."
            raise WorkFailed("storage_failed", words, str(error)) from None
        output = str(self.folder.video(job.id))
        return RunJob(job.id, request, output, bool(job.settings.get("preview", False)))

    def _ended(self, job: Job, done: Done | None) -> None:
        self.queue.invalidate()
        self.metrics.ended(job)
        took = None if done is None else round(done.seconds, 3)
        self.log.info(
            "video ended", video=job.id, status=job.status, code=job.error_code, seconds=took
        )
        if job.deleted or job.status == "failed":
            self.forget_files(job.id)
        if job.deleted:
            self.store.remove_deleted(job)


def new_job(
    video_id: str,
    owner: str,
    priority: int,
    submission: Submission,
    images: list[dict[str, Any]] | None = None,
) -> Job:
    """The job of a submission. images: `{frame, strength, crf}` of each."""
    return Job(
        id=video_id,
        owner=owner,
        model=submission.model,
        prompt=submission.prompt,
        size=submission.size,
        seconds=submission.seconds,
        settings=submission.settings,
        images=images or [],
        priority=priority,
    )


def new_id() -> str:
    return f"video_{uuid.uuid4().hex}"
