"""For operators: whether it lives, whether it can work, and numbers."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from .depends import TheService
from .documented import errors
from .errors import error_body
from .schemas import Health
from .views import engine_view

router = APIRouter()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PLAIN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}
}


class PlainText(Response):
    media_type = "text/plain"


@router.get("/liveness", operation_id="liveness", summary="Whether the server lives")
def liveness() -> Health:
    """Always, where it answers at all. Needs no key."""
    return Health(status="alive")


@router.get(
    "/health",
    operation_id="health",
    summary="Whether videos can be made",
    response_model=Health,
    responses=errors(503),
)
def health(service: TheService) -> Response:
    """200 once an engine is warm; 503 before, while it is stopped, and after its worker's death."""
    if service.ready:
        return JSONResponse({"status": "ready"})
    trouble = service.trouble
    if trouble is not None:
        body = error_body(503, trouble, "storage_failed")
        return JSONResponse({"status": "failing", **body}, 503, {"Retry-After": "5"})
    draining = service.draining.is_set()
    view = engine_view(service.workers(), service.line.now(), service.settings, draining, "")
    body = error_body(503, f"The engine is {view.status}.", view.status)
    return JSONResponse({"status": view.status, **body}, 503, {"Retry-After": "5"})


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_class=PlainText,
    responses={**PLAIN, **errors()},
)
def metrics(service: TheService) -> Response:
    """The queue, latency by stage, memory by component, failures by reason, requests."""
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
