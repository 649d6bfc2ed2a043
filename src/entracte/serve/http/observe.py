"""Every answer is counted, timed and logged: by route, without ids, queries and bodies."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from entracte.serve.metrics import Metrics

# Asked for all the time, by machines.
QUIET = frozenset({"/liveness", "/health", "/metrics", "/v1/videos/{video_id}", "/v1/engine"})


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
        begun = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, observed)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["route"].path if "route" in scope else "other"
        method = scope["method"] if len(scope["method"]) < 8 else "other"
        self._metrics.answered(method, route, status, seconds)
        if route not in QUIET or status == 500:
            ms = round(seconds * 1e3, 1)
            self._log.info("request", method=method, route=route, status=status, ms=ms)
