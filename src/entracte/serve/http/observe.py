"""Every answer is counted, timed and logged: by route, without ids, queries and bodies."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from entracte.serve.metrics import Metrics

# Asked for all the time, by machines.
QUIET = frozenset({"/liveness", "/health", "/metrics", "/v1/videos/{video_id}", "/v1/engine"})

# Others would be labels of the client's own making.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observe:
    """The outermost layer, so that refusals are seen too."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, answered = time.perf_counter(), False

        async def observed(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._note(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:  # whatever it is: it is only noted, and goes on
            if not answered:  # it will be, outside of all layers
                self._note(scope, 500, time.perf_counter() - begun)
            raise

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["route"].path if "route" in scope else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.answered(method, route, status, seconds)
        if route not in QUIET or status == 500:
            ms = round(seconds * 1e3, 1)
            self._log.info("request", method=method, route=route, status=status, ms=ms)
