"""For operators: liveness, health and metrics."""

from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from .depends import TheService, an_operator
from .errors import error_body
from .openapi import errors
from .schemas import Health
from .serializers import engine_status

router = APIRouter()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PLAIN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics."}
}


class PlainText(Response):
    media_type = "text/plain"


# Neither needs a thread or the database, which may be busy.


@router.get("/liveness", operation_id="liveness", summary="Whether the server lives")
async def liveness() -> Health:
    """Always succeeds if the server answers at all. Needs no key."""
    return Health(status="alive")


@router.get(
    "/health",
    operation_id="health",
    summary="Whether videos can be made",
    response_model=Health,
    responses=errors(503),
)
async def health(service: TheService) -> Response:
    """200 once an engine is warm; 503 before, while stopping, and after its worker died."""
    if service.ready:
        return JSONResponse({"status": "ready"})
    trouble = service.trouble
    if trouble is not None:
        body = error_body(503, trouble, "storage_failed")
        return JSONResponse({"status": "failing", **body}, 503, {"Retry-After": "5"})
    status = engine_status(service.workers(), service.draining.is_set())
    body = error_body(503, f"The engine is {status}.", status)
    return JSONResponse({"status": status, **body}, 503, {"Retry-After": "5"})


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics for Prometheus",
    dependencies=[Depends(an_operator)],
    response_class=PlainText,
    responses={**PLAIN, **errors()},
)
def metrics(service: TheService) -> Response:
    """The queue, latency by stage, memory by component, failures by reason, requests.

    Only for operators' keys, because it covers the requests of all keys.
    """
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
