"""Creating videos."""

import hashlib
from collections.abc import Sequence
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Request

from entracte.serve.data_folder import image_name
from entracte.serve.fields import ImageField, VideoFields
from entracte.serve.images import collect, is_elsewhere, placed, require_few, write_image
from entracte.serve.jobs.admission import KeyReused, QueueFull
from entracte.serve.jobs.failures import DatabaseError
from entracte.serve.jobs.job import Job
from entracte.serve.keys import Key
from entracte.serve.outbound.policy import host_of
from entracte.serve.service import Service, new_id, new_job
from entracte.serve.submission import Submission, resolve

from .depends import TheKey, TheService
from .errors import ApiError, bad_request
from .openapi import errors, json_body, video_body
from .read_body import read_body, read_json, understood
from .schemas import Estimate, Video
from .serializers import estimate_view, video_view
from .turns import Pools

router = APIRouter()

# Limit for fetching all images of a request.
FETCH_SECONDS = 60.0

# Bounds of `Retry-After`.
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
    """Queue a video. Poll it, or listen to its events, until it is finished."""
    settings, pools = service.settings, request.app.state.pools
    body = await read_body(request, settings.max_images, settings.max_body_bytes)
    fields = await understood(request, body, VideoFields)
    submission = await pools.intake.run(key.id, _resolve, service, fields)
    pictures = collect(fields, body.files, settings)
    _require_frames([said.frame for said, _ in pictures], submission.settings["num_frames"])
    await _require_webhook(service, pools, fields.webhook_url)
    images = placed([said for said, _ in pictures])
    video_id = new_id()
    new = new_job(video_id, key.id, key.priority, submission, images)
    new.webhook_url = fields.webhook_url
    new.idempotency_key = idempotency_key or None
    new.fingerprint = _fingerprint(fields, pictures)
    new.estimated_s = await pools.estimates.run(key.id, service.estimate, submission, len(pictures))
    try:
        sources = [source for _, source in pictures]
        new.input_bytes = await _write_images(service, pools, key, video_id, sources)
        job = await pools.intake.run(key.id, _submit, service, new)
    except DatabaseError:
        raise  # the video may have been queued all the same; if not, its files are swept
    except BaseException:
        service.forget_files(video_id)
        raise
    if job.id != video_id:  # a repeated request
        service.forget_files(video_id)
    return video_view(job, await pools.intake.run(key.id, service.queue.now))


@router.post(
    "/v1/videos/estimate",
    operation_id="estimateVideo",
    summary="How long a video would take",
    responses=errors(404, 413, 415),
    openapi_extra=json_body(VideoFields),
)
async def estimate(request: Request, service: TheService, key: TheKey) -> Estimate:
    """Check a request and estimate its time. Nothing is queued."""
    settings, pools = service.settings, request.app.state.pools
    fields = await read_json(request, VideoFields)
    submission = await pools.intake.run(key.id, _resolve, service, fields)
    frames = [said.frame for said in fields.images or []]
    if fields.input_reference is not None:
        frames.insert(0, 0)
    require_few(len(frames), settings)
    _require_frames(frames, submission.settings["num_frames"])
    await _require_webhook(service, pools, fields.webhook_url)
    seconds = await pools.estimates.run(key.id, service.estimate, submission, len(frames))
    return estimate_view(submission, seconds, await pools.intake.run(key.id, service.queue.now))


def _resolve(service: Service, fields: VideoFields) -> Submission:
    return resolve(fields, service.settings, service.model, service.loras.paths())


async def _require_webhook(service: Service, pools: Pools, url: str | None) -> None:
    if url is not None:
        await pools.hosts.run(host_of(url), service.outbound.require_webhook, url)


async def _write_images(
    service: Service, pools: Pools, key: Key, video_id: str, sources: list[bytes | str]
) -> int:
    """Write every image to the video's folder, one after the other; returns their bytes."""
    settings = service.settings
    if sources:
        service.folder.make_room(video_id)
    end = anyio.current_time() + FETCH_SECONDS
    kept = 0
    for number, source in enumerate(sources):
        if isinstance(source, str) and is_elsewhere(source):
            fetch, left = service.outbound.fetch_image, end - anyio.current_time()
            data: bytes | str = await pools.hosts.run(
                host_of(source), fetch, source, settings.max_image_bytes, left
            )
        else:
            data = source
        kept += await pools.pictures.run(
            key.id, write_image, data, service.folder, video_id, number, settings
        )
        if service.files.far:
            await pools.uploads.run(key.id, service.files.keep, video_id, image_name(number))
    return kept


def _submit(service: Service, new: Job) -> Job:
    try:
        return service.submit(new)
    except QueueFull as error:
        least, most = RETRY_SECONDS
        seconds = max(least, min(most, round(service.queue.now().next_s)))
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
            words = f"images: two images are at frame {frame}."
            raise bad_request(words, "images", "invalid_value")


def _fingerprint(fields: VideoFields, pictures: Sequence[tuple[ImageField, bytes | str]]) -> str:
    """A hash of what a request means, however it is written, to recognise repetitions."""
    said = fields.model_dump_json(exclude={"images", "input_reference"}, exclude_none=True)
    digest = hashlib.sha256(said.encode())
    for each, source in pictures:
        digest.update(each.model_dump_json(exclude={"image"}).encode())
        digest.update(source if isinstance(source, bytes) else source.encode())
    return digest.hexdigest()
