"""Limits on connections: how many there may be, and how long each may keep the server waiting.

When connections run out, those idle for longest are closed, so that active clients are answered
and idle ones cannot block them.
"""

import asyncio
import json
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .errors import ApiError, error_body, error_response

# Files that are not connections: the database, videos, pipes of workers.
OTHER_FILES = 256

# Connections over the limit that may request `/liveness`, and nothing else.
RESERVE = 32
RESERVE_SECONDS = 2.0

# Bytes per second: slower bodies are given up.
BODY_RATE = 4096

# A client that reads nothing of a response for this long is gone.
WRITE_SECONDS = 60.0

# Bytes of an unwanted rest of a body that are skipped.
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024

CROWDED = "The server has as many connections as it takes."
CROWDED_CODE = "too_many_connections"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """most: connections in total. per_address: per address, except for `proxies`.

    header_s: limit for a request's header. body_s: how often its body is checked; it must be
    complete, or have arrived at BODY_RATE since the last check.
    """

    most: int
    per_address: int
    proxies: frozenset[str]
    header_s: float
    body_s: float


def raise_open_files() -> int:
    """Raise the limit on open files as far as the system allows; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_connections(wanted: int, open_files: int) -> int:
    """The number of connections, at most `wanted`, that leaves enough files for everything else."""
    return min(wanted, open_files - min(OTHER_FILES, open_files // 2))


class Connections:
    """All connections of a server."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: set[BoundedProtocol] = set()
        self._of_address: Counter[str] = Counter()
        self._idle: dict[BoundedProtocol, None] = {}  # idle ones, the longest first
        self._reserve: set[BoundedProtocol] = set()

    def enter(self, connection: "BoundedProtocol") -> bool:
        """Whether there is room for one more connection, if need be by closing an idle one."""
        limits, address = self.limits, connection.address
        crowd = self._of_address[address] >= limits.per_address and address not in limits.proxies
        if crowd and not self._make_room(address):
            return False
        if len(self._open) >= limits.most and not self._make_room():
            return False
        self._open.add(connection)
        self._of_address[address] += 1
        self.idle(connection)
        return True

    def enter_reserve(self, connection: "BoundedProtocol") -> bool:
        """Whether there is room in the reserve for `/liveness`."""
        if len(self._reserve) >= RESERVE:
            return False
        self._reserve.add(connection)
        return True

    def leave(self, connection: "BoundedProtocol") -> None:
        """Note that a connection has ended, or is about to."""
        self._reserve.discard(connection)
        if connection in self._open:
            self._open.remove(connection)
            self._idle.pop(connection, None)
            self._of_address[connection.address] -= 1
            self._of_address += Counter()  # drops addresses without any

    def idle(self, connection: "BoundedProtocol") -> None:
        """Note that a connection is idle."""
        if connection in self._open:
            self._idle.setdefault(connection)

    def busy(self, connection: "BoundedProtocol") -> None:
        """Note that a connection has a request."""
        self._idle.pop(connection, None)

    def _make_room(self, address: str | None = None) -> bool:
        for connection in self._idle:
            if address in (None, connection.address):
                connection.give_way()
                return True
        return False


class BoundedProtocol(H11Protocol):
    """One connection, held to the limits."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, loop)
        self.address = ""
        self._all = connections
        self._state: Literal["header", "body", "answer", "kept", "lingers"] = "header"
        self._timer: asyncio.TimerHandle | None = None  # for what the client must send
        self._reader: asyncio.TimerHandle | None = None  # for what it must read
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        seconds = self._all.limits.header_s
        if not self._all.enter(self):
            if not self._all.enter_reserve(self):
                self._refuse(503, CROWDED, CROWDED_CODE)
                return
            self.app = _Crowded(self.app)
            self.timeout_keep_alive = 0
            seconds = min(seconds, RESERVE_SECONDS)
        self._wait(seconds, self._header_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._state == "lingers" and self._received > LINGER_BYTES:
            self.transport.abort()
            return
        super().data_received(data)
        self._look()
        if self._state == "kept":  # more than nothing of the next request
            self._wait_for_header()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._linger()
        else:
            self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg, "invalid_http")

    def give_way(self) -> None:
        """Close the idle connection to make room."""
        self._let_go()
        self.transport.abort()

    def _look(self) -> None:
        """Note what the client must send next, if anything."""
        their = self.conn.their_state
        if their is h11.IDLE:
            if self._state in ("body", "answer", "lingers"):
                self._all.idle(self)
                self._received = len(self.conn.trailing_data[0])  # of the next request
                if self._received:
                    self._wait_for_header()
                else:
                    self._state = "kept"  # for which uvicorn has its own limit
                    self._wait_no_more()
        elif their is h11.SEND_BODY:
            if self._state not in ("body", "lingers"):
                self._state = "body"
                self._all.busy(self)
                self._wait_for_body()
        else:
            self._state = "answer"
            self._all.busy(self)
            self._wait_no_more()

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._wait_no_more()
        self._timer = self.loop.call_later(seconds, then)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait_for_header(self) -> None:
        self._state = "header"
        self._unset_keepalive_if_required()
        self._wait(self._all.limits.header_s, self._header_is_late)

    def _wait_for_body(self) -> None:
        self._received = 0
        self._wait(self._all.limits.body_s, self._look_at_body)

    def _look_at_body(self) -> None:
        enough = self._received >= BODY_RATE * self._all.limits.body_s
        if enough or self.flow.read_paused:  # we are the ones who do not read
            self._wait_for_body()
        else:
            self.transport.abort()

    def _header_is_late(self) -> None:
        if self._received:
            self._refuse(408, "The request did not come in time.", "request_timeout")
        else:
            self.transport.close()

    def _linger(self) -> None:
        """The response was sent before the whole body arrived: skip a short rest and keep the
        connection.

        Closing at once would make the system discard the response before the client has read it.
        """
        self._state = "lingers"
        self._received = 0
        self._unset_keepalive_if_required()
        self._wait(LINGER_SECONDS, self.transport.abort)

    def _refuse(self, status: int, words: str, code: str) -> None:
        """Respond to something that is not a request, and close."""
        self._wait_no_more()
        if self.cycle is not None:
            self.cycle.disconnected = True  # a request before it, or its own body
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps(error_body(status, words, code)).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        answer = h11.Response(status_code=status, headers=headers)
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _let_go(self) -> None:
        """Stop counting the connection and all its timers."""
        self._wait_no_more()
        if self._reader is not None:
            self._reader.cancel()
        self._all.leave(self)


class _Crowded:
    """The application of connections over the limit: it answers only `/liveness`."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/liveness":
            await self._app(scope, receive, send)
            return
        headers = {"Retry-After": "5", "Connection": "close"}
        error = ApiError(503, CROWDED, CROWDED_CODE, headers=headers)
        await error_response(error)(scope, receive, send)


def protocol_of(connections: Connections) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn."""

    class Protocol(BoundedProtocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(connections, config, server_state, app_state, _loop)

    return Protocol
