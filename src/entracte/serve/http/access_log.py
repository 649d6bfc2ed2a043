"""Gives every response an id; counts, times and logs it by route, without query and body."""

import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from entracte.serve.metrics import Metrics

from .errors import ApiError, error_response

# Polled by machines.
QUIET = frozenset({"/liveness", "/health", "/metrics", "/v1/videos/{video_id}", "/v1/engine"})

# Other methods would be labels that clients choose.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

# A request id that a proxy may have set.
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

# Statuses that clients without a key can cause, as often as they like.
STRANGERS = frozenset({401, 403})


class Observe:
    """The outermost middleware, so that it sees refusals too."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
                self._note(scope, message["status"], time.perf_counter() - begun, request_id)
            await send(message)

        await self._app(scope, receive, observed)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = scope["route"].path if "route" in scope else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.answered(method, route, status, seconds)
        if route not in QUIET or status == 500:
            ms = round(seconds * 1e3, 1)
            kind = ("request", method, status) if status in STRANGERS else None
            self._log.info(
                "request",
                method=method,
                route=route,
                status=status,
                ms=ms,
                request=request_id,
                thin=kind,
            )


class Mistakes:
    """Responds to uncaught errors; if a response has begun, the connection is cut."""

    def __init__(self, app: ASGIApp, log: FilteringBoundLogger) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # of any kind: the client and the log must know
            if answered or scope["type"] != "http":
                raise
            self._log.error("a mistake of ours", exc_info=error)
            mistake = ApiError(500, "The server made a mistake.", "internal_error")
            await error_response(mistake)(scope, receive, send)
