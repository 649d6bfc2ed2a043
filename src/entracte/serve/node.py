"""A process of the service: its database, its files, its events, and its workers, if it has any."""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from entracte.config.serve import ServeSettings
from entracte.errors import RequestError

from .background import Loop, Reaper, Sweeping
from .data_folder import DataFolder, DataFolderError, image_name
from .errors import RequestRefused
from .events import EventBus, ServerEvent
from .files import open_files
from .jobs.database import open_database
from .jobs.job import Job
from .jobs.outbox import Outbox
from .jobs.store import JobStore
from .loras import LoraFolder
from .relay import Receiver, Sender
from .roster import Roster
from .submission import request_of
from .workers.messages import Done, RunJob
from .workers.process_handle import KILL_SECONDS
from .workers.protocol import OpenRunner, WorkFailed
from .workers.state import WorkerSnapshot
from .workers.supervisor import LEASE_SECONDS, STOP_PATIENCE, Supervisor

DAY = 86_400.0

# How long workers may take to stop before they are killed: a little more than they are told.
STOP_SECONDS = STOP_PATIENCE + KILL_SECONDS

# How often a worker of a shared database looks for work that nobody has told it of.
LOOK_SECONDS = 5.0

# Characters of a machine's name in its workers' names.
HOST_CHARACTERS = 50

READ_WORDS = "The server cannot read what the video is made from."
WRITE_WORDS = "The server cannot write the video."

# From a worker's device to what opens its engine in the worker process.
RunnerOf = Callable[[str], OpenRunner]


class Node:
    """`start` it, and finally `stop` it.

    It has its SQLite database to itself; PostgreSQL it shares with other nodes, which tell each
    other what happens (`relay`), show their workers (`roster`), and take up again what others
    leave behind. runner_of: opens the engines of its workers; None if it has none.
    """

    def __init__(
        self, settings: ServeSettings, runner_of: RunnerOf | None, log: FilteringBoundLogger
    ) -> None:
        self.settings = settings
        self.log = log
        self.folder = DataFolder(settings.data_folder, settings.database)
        self.folder.prepare()
        self.database = open_database(self.folder.place)
        self.files = open_files(self.folder, settings.storage)
        self.folder.make_videos()
        self.alone = self.database.dialect.name == "sqlite"
        self.outbox = Outbox(self.database, settings.webhook_url)
        keep_s = None if math.isinf(settings.keep_days) else settings.keep_days * DAY
        self.store = JobStore(self.database, self.outbox, keep_s)
        self.events = EventBus()
        self.loras = LoraFolder(settings.lora_folder, log)
        devices = settings.devices or (settings.device,)
        self.supervisors = [
            self._supervisor(number, device, runner_of(device))
            for number, device in enumerate(devices)
            if runner_of is not None
        ]
        self._threads: list[Loop] = []
        self._roster: Roster | None = None
        if not self.alone:
            self._roster = Roster(self.database, self._own_workers, log)
            sender = Sender(self.database, log)
            self.events.forward = sender.send
            receiver = Receiver(self.database, self.events, sender.origin, self.wake, log)
            reaper = Reaper(self.store, self._recovered, LEASE_SECONDS, log)
            self._threads += [self._roster, sender, receiver, reaper]
        if self.files.far:
            self._threads.append(Sweeping(self.files, log))
        self.draining = threading.Event()
        self._open = ExitStack()

    def start(self) -> None:
        """Resume what was left; raises DataFolderError if another server has the folder."""
        if self.alone:
            self._open.enter_context(self.folder.locked())
            for job in self.store.recover():
                self.log.warning("video taken up again", video=job.id, status=job.status)
            removed = self.files.sweep(self.store.known(failed=False), 0.0)
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
        for supervisor in self.supervisors:
            supervisor.stop()
        deadline = time.monotonic() + STOP_SECONDS
        for supervisor in self.supervisors:
            if supervisor.ident is not None:  # else it was never started
                supervisor.join(max(0.0, deadline - time.monotonic()))
            supervisor.kill()
        for thread in self._threads:
            thread.stop()
        for thread in self._threads:
            if not self.alone and thread.ident is not None:  # the last events are still to be sent
                thread.join(max(0.0, deadline - time.monotonic()))
        self.database.dispose()
        self._open.close()

    def workers(self) -> list[WorkerSnapshot]:
        """All workers of the database, this node's first. Does not block."""
        others = [] if self._roster is None else self._roster.others
        return [*self._own_workers(), *others]

    @property
    def startup_error(self) -> str | None:
        """Why no engine of this node can be opened; None if one can."""
        words = [each.startup_error for each in self.supervisors]
        return words[0] if words and all(words) else None

    @property
    def trouble(self) -> str | None:
        """What keeps the node from working, apart from workers that are not ready. Does not
        block.
        """
        threads: Sequence[Loop | Supervisor] = (*self._threads, *self.supervisors)
        for thread in threads:
            if thread.ident is not None and not thread.is_alive() and self.startup_error is None:
                return f"The server's thread {thread.name} has ended."
            if thread.trouble.words is not None:
                return f"The server's {thread.name} cannot work: {thread.trouble.words}."
        return None

    def wake(self) -> None:
        """Have idle workers look for work now."""
        for supervisor in self.supervisors:
            supervisor.wake()

    def announce_work(self) -> None:
        """Have idle workers of all nodes look for work now."""
        self.wake()
        self.events.publish(ServerEvent("queued", owner=""))

    def forget_files(self, video_id: str) -> None:
        """Remove files that no video needs any more; the next start removes what is left."""
        try:
            self.files.remove(video_id)
        except DataFolderError as error:
            self.log.error("files not removed", video=video_id, why=str(error))

    def _own_workers(self) -> list[WorkerSnapshot]:
        return [each.view for each in self.supervisors]

    def _supervisor(self, number: int, device: str, open_runner: OpenRunner) -> Supervisor:
        host = socket.gethostname()[:HOST_CHARACTERS]
        return Supervisor(
            # Who shares a database needs a name that nobody else has, now or before.
            f"worker-{number}" if self.alone else f"{host}-{os.urandom(4).hex()}-{number}",
            device,
            open_runner,
            self.store,
            self.events,
            self._work_of,
            self._keep,
            self._ended,
            self.log,
            self.settings.max_running_per_key,
            self.settings.nice,
            0.0 if self.alone else LOOK_SECONDS,
            self.files.far,
        )

    def _work_of(self, job: Job) -> RunJob:
        loras = self.loras.paths()
        try:
            images = [
                {"path": self._input(job, image_name(number)), **image}
                for number, image in enumerate(job.images)
            ]
            request = request_of(job.prompt, job.settings, loras, images)
        except RequestError as error:
            raise WorkFailed("invalid_request", str(error)) from error
        except RequestRefused as error:  # its LoRA is gone
            raise WorkFailed(error.code or "invalid_request", error.message) from None
        except DataFolderError as error:
            raise WorkFailed("storage_failed", READ_WORDS, str(error)) from None
        try:
            self.folder.make_room(job.id)
        except DataFolderError as error:
            raise WorkFailed("storage_failed", WRITE_WORDS, str(error)) from None
        output = str(self.folder.of_video(job.id) / job.output)
        return RunJob(job.id, request, output, bool(job.settings.get("preview", False)))

    def _input(self, job: Job, name: str) -> Path:
        path = self.files.find(job.id, name)
        if path is None:
            raise DataFolderError(f"{job.id} has no {name}")
        return path

    def _keep(self, job: Job) -> None:
        """Keep the file that a worker has written; raises WorkFailed."""
        try:
            self.files.keep(job.id, job.output)
        except DataFolderError as error:
            raise WorkFailed("storage_failed", WRITE_WORDS, str(error)) from None

    def _ended(self, job: Job, done: Done | None) -> None:
        """A job of this node's workers has ended."""
        took = None if done is None else round(done.seconds, 3)
        self.log.info(
            "video ended", video=job.id, status=job.status, code=job.error_code, seconds=took
        )
        if job.deleted or job.status == "failed":
            self.forget_files(job.id)
        if job.deleted:
            self.store.remove_deleted(job)
        if self.settings.max_running_per_key is not None:
            self.announce_work()  # the key's next one may begin

    def _recovered(self, job: Job) -> None:
        """A job whose worker is gone begins again, or has failed."""
        self.log.warning("video taken up again", video=job.id, status=job.status)
        if job.ended:
            self.forget_files(job.id)
        else:
            self.announce_work()
        self.events.publish(ServerEvent("video", job.id, job.owner))
