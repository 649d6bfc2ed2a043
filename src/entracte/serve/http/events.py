"""Server-sent events: of one video, or of all videos of a key."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from entracte.serve.events import ServerEvent, Subscriber
from entracte.serve.jobs.job import Job
from entracte.serve.keys import FRESH_SECONDS, LOCAL, Key
from entracte.serve.service import Service

from .depends import TheJob, TheKey, TheService
from .openapi import errors
from .serializers import engine_view, video_view

router = APIRouter(prefix="/v1")

# Sent if there are no events, so that the connection is not taken for dead.
QUIET_SECONDS = 15.0
QUIET = ": quiet\n\n"

# The engine's memory changes often; it is sent at most this often.
ENGINE_SECONDS = 1.0

# Tools read the schema of a stream as the schema of one event.
EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": ["video", "deleted", "preview", "engine"]},
        "id": {"type": "string", "description": "The video's revision."},
        "data": {"type": "string", "description": "JSON."},
    },
    "required": ["event", "data"],
}

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {"schema": EVENT}},
        "description": "Events.",
    }
}


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


@router.get(
    "/videos/{video_id}/events",
    operation_id="videoEvents",
    summary="What happens to a video",
    response_class=EventStream,
    responses={**STREAM, **errors(404)},
)
async def of_one(
    job: TheJob,
    service: TheService,
    key: TheKey,
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> EventStream:
    """`video` with the whole video at every change, `preview` with a picture; ends with the video.

    An event's id is the video's revision: with `Last-Event-ID`, events already seen are not
    repeated.
    """
    seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() else -1
    return EventStream(_one(service, key, job, seen))


@router.get(
    "/events",
    operation_id="events",
    summary="What happens to your videos and to the engine",
    response_class=EventStream,
    responses={**STREAM, **errors()},
)
async def of_all(service: TheService, key: TheKey) -> EventStream:
    """`video`, `deleted`, `preview` and `engine`, from now on; an `engine` comes at once."""
    return EventStream(_all(service, key))


async def _one(service: Service, key: Key, job: Job, seen: int) -> AsyncIterator[str]:
    with service.events.subscribe(lambda event: event.video_id == job.id) as subscriber:
        received = [ServerEvent("video", job.id, job.owner)]
        while await _may_listen(service, key, subscriber):
            for event in received:
                if event.kind == "preview":
                    yield _preview(event)
                    continue
                now = await anyio.to_thread.run_sync(service.store.find, job.id)
                if now is None:
                    yield _event("deleted", {"id": job.id})
                    return
                if now.revision > seen:
                    seen = now.revision
                    yield await _video(service, now)
                if now.ended:
                    return
            received = await _receive(service, key, subscriber, QUIET_SECONDS)
            if not received:  # another process (`entracte jobs cancel`) may have ended it
                yield QUIET
                received = [ServerEvent("video", job.id, job.owner)]


async def _all(service: Service, key: Key) -> AsyncIterator[str]:
    def mine(event: ServerEvent) -> bool:
        return event.owner in (None, key.id)

    with service.events.subscribe(mine) as subscriber:
        engine_at: float | None = anyio.current_time()  # when to send its state; None: not due
        told_at = -ENGINE_SECONDS
        while await _may_listen(service, key, subscriber):
            now = anyio.current_time()
            if engine_at is not None and engine_at <= now:
                engine_at, told_at = None, now
                yield await _engine(service, key)
            wait = QUIET_SECONDS if engine_at is None else engine_at - now
            received = await _receive(service, key, subscriber, wait)
            if not received:  # another process (`entracte jobs cancel`) may have changed the queue
                engine_at = anyio.current_time()
            for event in received:
                if event.kind == "engine":
                    engine_at = engine_at or max(now, told_at + ENGINE_SECONDS)
                elif event.kind == "preview":
                    yield _preview(event)
                elif event.kind == "deleted":
                    yield _event("deleted", {"id": event.video_id})
                else:
                    job = await anyio.to_thread.run_sync(service.store.find, event.video_id, key.id)
                    if job is not None:
                        yield await _video(service, job)


async def _receive(
    service: Service, key: Key, subscriber: Subscriber, seconds: float
) -> list[ServerEvent]:
    """The events within that many seconds; none, and sooner, if the key is revoked."""
    end = anyio.current_time() + seconds
    while (left := end - anyio.current_time()) > 0:
        received = await subscriber.receive(min(left, FRESH_SECONDS))
        if received or not await _may_listen(service, key, subscriber):
            return received
    return []


async def _may_listen(service: Service, key: Key, subscriber: Subscriber) -> bool:
    """Whether the key is still valid: a stream outlives the check at its start."""
    if subscriber.closed or key == LOCAL or service.keys.is_fresh:
        return not subscriber.closed and service.keys.holds(key)
    return await anyio.to_thread.run_sync(service.keys.holds, key)


async def _engine(service: Service, key: Key) -> str:
    queue = await anyio.to_thread.run_sync(service.queue.now)
    draining = service.draining.is_set()
    view = engine_view(service.workers(), queue, service.settings, service.model, draining, key)
    return _event("engine", view)


async def _video(service: Service, job: Job) -> str:
    queue = await anyio.to_thread.run_sync(service.queue.now)
    return _event("video", video_view(job, queue), job.revision)


def _preview(event: ServerEvent) -> str:
    image = f"data:image/webp;base64,{base64.b64encode(event.image).decode()}"
    return _event("preview", {"id": event.video_id, "step": event.step, "image": image})


def _event(kind: str, data: BaseModel | dict[str, Any], number: int | None = None) -> str:
    text = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    identity = "" if number is None else f"id: {number}\n"
    return f"event: {kind}\n{identity}data: {text}\n\n"
