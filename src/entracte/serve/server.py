"""The server: validates, listens, and stops without losing jobs."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from structlog.typing import FilteringBoundLogger

from entracte.checkpoints.model_header import ModelHeader
from entracte.config.opening import read_header
from entracte.config.serve import ServeSettings
from entracte.errors import RequestError
from entracte.serve.workers.engine_factory import OpenEngine

from .errors import RequestRefused, ServerError
from .http.app import LOOPBACK, make_app
from .http.connections import (
    ConnectionLimits,
    Connections,
    most_connections,
    protocol_of,
    raise_open_files,
)
from .http.cors import require_origins
from .jobs.database import is_shared, parse_url
from .loras import require_folder
from .node import STOP_SECONDS, Node, RunnerOf
from .node_process import EXIT_STUCK, OWNER_ONLY, PATIENCE_SECONDS
from .service import Service
from .submission import usual_request

# How long open connections may take to close once everything else has stopped.
CONNECTIONS_SECONDS = 3

# How often to check whether an engine has opened.
WATCH_SECONDS = 0.05

# How long an idle connection is kept. Clients poll every few seconds, and proxies keep theirs for a
# minute; the client should be the one to hang up.
KEEP_ALIVE_SECONDS = 75

# Connections that the system keeps until they are accepted.
BACKLOG = 256


def check(settings: ServeSettings) -> None:
    """Raise RequestError for contradictory settings."""
    if settings.auth == "off" and settings.host not in LOOPBACK:
        raise RequestError(
            f"`auth` off lets everybody who reaches {settings.host} do everything; listen at "
            "127.0.0.1, or use keys (`entracte keys add NAME`)",
            settings=("auth",),
        )
    if settings.workers == "elsewhere":
        require_shared(settings)
    require_origins(settings.cors_origin)
    require_folder(settings.lora_folder)


def open_service(settings: ServeSettings, log: FilteringBoundLogger) -> Service:
    """Open the service; raises EntracteError for wrong settings, or a model that cannot be run."""
    check(settings)
    model = read_header(settings)
    opener = _opener(settings, model)
    runner_of = None if settings.workers == "elsewhere" else opener
    return Service(settings, model, runner_of, log)


def open_node(settings: ServeSettings, log: FilteringBoundLogger) -> Node:
    """Open what works for servers elsewhere; raises EntracteError as `open_service` does."""
    require_shared(settings)
    require_folder(settings.lora_folder)
    return Node(settings, _opener(settings, read_header(settings)), log)


def _opener(settings: ServeSettings, model: ModelHeader) -> RunnerOf:
    """What opens engines; raises RequestError if the model cannot make the default video."""
    try:
        usual = usual_request(settings, model)
    except RequestRefused as error:
        raise RequestError(f"the default video cannot be made: {error.message}") from None
    return lambda device: OpenEngine(settings, device, usual, settings.warm_up)


def require_shared(settings: ServeSettings) -> None:
    """Raise RequestError unless the database is one that several processes can share."""
    if settings.database is None or not is_shared(parse_url(settings.database)):
        raise RequestError(
            "workers and servers that are processes of their own share a PostgreSQL database: set "
            "`database` to postgresql+psycopg://user@host/name",
            settings=("database",),
        )


def bind(settings: ServeSettings) -> socket.socket:
    """The socket to listen on; raises ServerError if the address is taken or not available."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio disables Nagle only for sockets that are explicitly TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(
            BACKLOG
        )  # or another server could still take it, and the first clients be refused
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise ServerError(f"cannot listen at {where}: {error.strerror}") from None
    return listener


def run(service: Service, listener: socket.socket, greet: Callable[[], None]) -> None:
    """Serve until told to stop; raises ServerError if no engine can be opened.

    greet: called once the first engine is open.

    SIGTERM or Ctrl-C: accept nothing new, let running videos finish, and return those to the queue
    that do not finish in time. A second signal stops at once.
    """
    server = _Server(server_config(service), service, greet)
    os.umask(OWNER_ONLY)
    service.start()
    try:
        asyncio.run(server.serve(sockets=[listener]))
    finally:
        service.stop()
        if server.ended_by is not None:
            signal.raise_signal(server.ended_by)
    if service.startup_error is not None:
        raise ServerError(service.startup_error)


def server_config(service: Service) -> uvicorn.Config:
    """The configuration of uvicorn."""
    settings = service.settings
    limits = ConnectionLimits(
        most_connections(settings.max_connections, raise_open_files()),
        settings.max_connections_per_address,
        frozenset(settings.trusted_proxy),
        settings.header_seconds,
        settings.body_seconds,
    )
    return uvicorn.Config(
        make_app(service),
        http=protocol_of(Connections(limits)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxy),
        forwarded_allow_ips=list(settings.trusted_proxy),
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CONNECTIONS_SECONDS,
    )


class _Server(uvicorn.Server):
    """Drains the service before it closes connections."""

    def __init__(self, config: uvicorn.Config, service: Service, greet: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._greet = greet
        self._asked = False
        self.ended_by: int | None = None  # the second signal: stop at once

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked:
            # uvicorn would raise it again, before the workers are ended; a frozen one would stay.
            self.ended_by = sig
            self._end_within(0)
            self._service.events.close()
            self.should_exit = True
            return
        self._asked = True
        self._end_within(self._service.settings.drain_seconds)
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        settings = self._service.settings
        self._service.log.info("stopping", drain_seconds=settings.drain_seconds)
        self._service.drain(settings.drain_seconds)
        self._service.events.close()
        self.should_exit = True

    def _end_within(self, seconds: float) -> None:
        """End the process once told to, even if something hangs, though nothing should."""
        longest = seconds + STOP_SECONDS + CONNECTIONS_SECONDS + PATIENCE_SECONDS
        last = threading.Timer(longest, self._give_up)
        last.daemon = True
        last.start()

    def _give_up(self) -> None:
        self._service.log.error("the server does not stop, and is ended")
        for supervisor in self._service.supervisors:
            supervisor.kill()
        os._exit(EXIT_STUCK)

    def _watch(self) -> None:
        """Greet once there is an engine; stop if there can be none."""
        supervisors = self._service.supervisors
        while not self._service.opened and any(s.is_alive() for s in supervisors):
            time.sleep(WATCH_SECONDS)
        if self._service.opened or not supervisors:
            self._greet()
        for supervisor in supervisors:
            supervisor.join()
        if self._service.startup_error is not None:
            self._service.events.close()
            self.should_exit = True
