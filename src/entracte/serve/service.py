"""The service behind HTTP: what a node does for clients, within limits."""

import uuid
from typing import Any

from structlog.typing import FilteringBoundLogger

from entracte.checkpoints.model_header import ModelHeader
from entracte.config.residency import parse_size
from entracte.config.serve import ServeSettings
from entracte.errors import RequestError
from entracte.serve.webhooks.dispatcher import Dispatcher, webhook_secret

from .background import Housekeeping, Probe
from .errors import Draining
from .events import ServerEvent
from .jobs.admission import QueueLimits
from .jobs.job import Job
from .keys import KeyStore
from .metrics import Metrics
from .node import Node, RunnerOf
from .outbound.policy import Outbound
from .queue_view import QueueReader
from .sessions import SessionStore
from .submission import Submission, from_request, refusal, request_of
from .workers.messages import Done

# How long a client waits for an estimate.
ESTIMATE_SECONDS = 1.0


class Service(Node):
    """A node that answers clients.

    model: what is served, whose defaults requests take. runner_of: opens the engines of its own
    workers; None if all workers are elsewhere.
    """

    def __init__(
        self,
        settings: ServeSettings,
        model: ModelHeader,
        runner_of: RunnerOf | None,
        log: FilteringBoundLogger,
    ) -> None:
        super().__init__(settings, runner_of, log)
        self.model = model
        self.keys = KeyStore(self.database)
        self.sessions = SessionStore(self.database, self.keys)
        self.limits = QueueLimits(
            settings.max_queued, settings.max_queued_per_key, settings.max_queued_bytes
        )
        self.queue = QueueReader(self.store, lambda: len(self.workers()))
        self.metrics = Metrics(self.queue.now, self.workers)
        self.outbound = Outbound(settings)
        keep_bytes = parse_size("keep_size", settings.keep_size)
        secret = webhook_secret(self.folder, self.database)
        self._threads += [
            Housekeeping(self.store, self.files, self.events, log, keep_bytes, not self.alone),
            Dispatcher(self.outbox, self.outbound, secret, self.metrics, log),
            Probe(self.store, log),
        ]

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
            self.announce_work()
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
        self.store.delete(job, self.files.remove)
        self.queue.invalidate()
        self.events.publish(ServerEvent("deleted", job.id, job.owner))

    def _ended(self, job: Job, done: Done | None) -> None:
        self.queue.invalidate()
        self.metrics.ended(job)
        super()._ended(job, done)

    def _recovered(self, job: Job) -> None:
        self.queue.invalidate()
        if job.ended:
            self.metrics.ended(job)
        super()._recovered(job)


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
