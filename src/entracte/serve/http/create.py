"""Asking for a video."""

import hashlib
import json
from dataclasses import replace
from typing import Annotated

import anyio
from anyio import CapacityLimiter
from fastapi import APIRouter, Header, Request

from entracte.serve.images import collect, placed, require_few, write_images
from entracte.serve.jobs.job import Job, NewJob
from entracte.serve.jobs.store import KeyReused, QueueFull
from entracte.serve.keys import Key
from entracte.serve.loras import list_loras
from entracte.serve.service import Service, new_id, new_job
from entracte.serve.wanted import resolve

from .depends import TheKey, TheService
from .documented import errors, json_body, video_body
from .errors import ApiError, bad_request
from .fields import VideoFields
from .read_body import Body, checked, read_body, read_json
from .schemas import Estimate, Video
from .views import estimate_view, video_view

router = APIRouter()

# So many requests are taken in at once: images are large once they are decoded.
AT_ONCE = 4

# Bounds of what a client is told to wait.
RETRY_SECONDS = (1, 60)


@router.post(
    "/v1/videos",
    operation_id="createVideo",
    summary="Ask for a video",
    responses=errors(404, 413, 415, 422, 429, 503),
    openapi_extra=video_body(),
)
async def create(
    request: Request,
    service: TheService,
    key: TheKey,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> Video:
    """Put a video into the queue. Poll it, or listen to its events, until it is there."""
    settings = service.settings
    body = await read_body(request, settings.max_images, settings.max_body_bytes)
    limiter: CapacityLimiter = request.app.state.intake
    job = await anyio.to_thread.run_sync(
        _take_in, service, key, body, idempotency_key, limiter=limiter
    )
    line = await anyio.to_thread.run_sync(service.line.now)
    return video_view(job, line)


@router.post(
    "/v1/videos/estimate",
    operation_id="estimateVideo",
    summary="How long a video would take",
    responses=errors(404, 413, 415),
    openapi_extra=json_body(VideoFields),
)
async def estimate(request: Request, service: TheService, key: TheKey) -> Estimate:  # noqa: ARG001
    """Check the fields of a request, and say what it would take. Nothing is queued."""
    fields = checked(VideoFields, await read_json(request))

    def ask() -> Estimate:
        wanted = resolve(fields, service.settings, list_loras(service.settings.lora_folder))
        service.outbound.require_webhook(fields.webhook_url)
        frames = [said.frame for said in fields.images or []]
        if fields.input_reference is not None:
            frames.insert(0, 0)
        require_few(len(frames), service.settings)
        _require_frames(frames, wanted.settings["num_frames"])
        return estimate_view(wanted, service.estimate(wanted, len(frames)), service.line.now())

    return await anyio.to_thread.run_sync(ask)


def _take_in(service: Service, key: Key, body: Body, idempotency_key: str | None) -> Job:
    """Everything that takes time, and no event loop."""
    settings = service.settings
    fields = checked(VideoFields, body.fields)
    wanted = resolve(fields, settings, list_loras(settings.lora_folder))
    service.outbound.require_webhook(fields.webhook_url)
    images = collect(fields, body.files, settings, service.outbound.fetch_image)
    _require_frames([said.frame for _, said in images], wanted.settings["num_frames"])
    new = replace(
        new_job(new_id(), key.id, key.priority, wanted, placed([said for _, said in images])),
        webhook_url=fields.webhook_url,
        idempotency_key=idempotency_key,
        fingerprint=_fingerprint(body),
        estimated_s=service.estimate(wanted, len(images)),
    )
    pictures = [data for data, _ in images]
    try:
        write_images(pictures, service.folder, new.id, settings.max_image_pixels)
        job = _submit(service, new)
    except BaseException:
        service.forget_files(new.id)
        raise
    if job.id != new.id:  # the same request came before
        service.forget_files(new.id)
    return job


def _submit(service: Service, new: NewJob) -> Job:
    try:
        return service.submit(new)
    except QueueFull as error:
        least, most = RETRY_SECONDS
        seconds = max(least, min(most, round(service.line.now().next_s)))
        headers = {"Retry-After": str(seconds)}
        words = f"{str(error).capitalize()}. Ask again later."
        raise ApiError(429, words, "queue_full", headers=headers) from None
    except KeyReused as error:
        words = f"{str(error)[0].upper()}{str(error)[1:]}."
        raise ApiError(422, words, "idempotency_key_reused", "Idempotency-Key") from None


def _require_frames(frames: list[int], count: int) -> None:
    for frame in frames:
        if frame >= count:
            words = f"images: frame {frame} is outside the video, which has 0 to {count - 1}."
            raise bad_request(words, "images", "invalid_value")
        if frames.count(frame) > 1:
            words = f"images: two images stand at frame {frame}."
            raise bad_request(words, "images", "invalid_value")


def _fingerprint(body: Body) -> str:
    """Of a request's content, so that a repeated one is known."""
    digest = hashlib.sha256(json.dumps(body.fields, sort_keys=True).encode())
    for file in body.files:
        digest.update(hashlib.sha256(file).digest())
    return digest.hexdigest()
