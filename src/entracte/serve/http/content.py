"""The files of a video."""

import time
import unicodedata
from pathlib import Path as FilePath
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from entracte.serve.data_folder import image_name
from entracte.serve.jobs.job import Job
from entracte.serve.service import Service
from entracte.serve.variants import DamagedVideo, make_variant

from .depends import TheJob, TheService
from .errors import ApiError
from .files import File
from .openapi import errors
from .turns import Pools

router = APIRouter(prefix="/v1/videos/{video_id}")

TYPES = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}

# A finished video never changes, but only its owner may cache it.
PASSING = {"Cache-Control": "no-store"}
KEPT = {"Cache-Control": "private, max-age=3600"}

# Characters of a prompt in a file name.
NAME_CHARACTERS = 50

BINARY = {"schema": {"type": "string", "format": "binary"}}
PARTS = dict.fromkeys((*TYPES.values(), "multipart/byteranges"), BINARY)
PARTS_OF_IMAGES = dict.fromkeys(("image/png", "multipart/byteranges"), BINARY)


@router.get(
    "/content",
    operation_id="downloadVideo",
    summary="The video, or a picture of it",
    response_class=FileResponse,
    responses={
        200: {"content": dict.fromkeys(TYPES.values(), BINARY), "description": "The file."},
        206: {"content": PARTS, "description": "A part of it, or several."},
        302: {"description": "It is at this address for a while, if the server says so."},
        304: {"description": "The client has it."},
        **errors(404, 409, 412, 416),
    },
)
async def content(
    request: Request,
    job: TheJob,
    service: TheService,
    variant: Literal["video", "thumbnail", "spritesheet"] = "video",
    download: Annotated[bool, Query(description="Have a browser save it.")] = False,
) -> Response:
    """An mp4 with H.264 and AAC; a thumbnail is WebP, a spritesheet JPEG. Ranges are supported."""
    if job.status != "completed":
        words = "failed" if job.status == "failed" else "is not there yet"
        raise ApiError(409, f"This video {words}.", f"video_{job.status}", "video_id")
    pools: Pools = request.app.state.pools
    if variant == "video" and service.settings.redirect_seconds is not None:
        link = service.files.link(job.id, job.file, service.settings.redirect_seconds)
        if link is not None:
            return RedirectResponse(link, 302, PASSING)
    path = await _find(pools, job, service, job.file)
    damaged = ApiError(404, "The file of this video is damaged.", "file_gone", "video_id")
    if path is None:
        raise ApiError(404, "The file of this video is gone.", "file_gone", "video_id")
    if job.bytes is not None and path.stat().st_size != job.bytes:
        raise damaged
    if variant != "video":
        try:
            path = await pools.variants.run(job.owner, make_variant, path, variant)
        except DamagedVideo:
            raise damaged from None
    return File(
        path,
        media_type=TYPES[variant],
        headers=KEPT,
        filename=f"{file_stem(job.prompt, job.created_at)}{path.suffix}",
        content_disposition_type="attachment" if download else "inline",
    )


async def _find(pools: Pools, job: Job, service: Service, name: str) -> FilePath | None:
    """A file of a video on this machine; it may have to be fetched first."""
    if not service.files.far:
        return service.files.find(job.id, name)
    return await pools.downloads.run(job.owner, service.files.find, job.id, name)


def file_stem(prompt: str, created_at: float) -> str:
    """A file name for people: the day and the first words of the prompt."""
    # Letters, marks and digits of any script; others may be special to a file system.
    kept = (c if unicodedata.category(c)[0] in "LMN" else " " for c in prompt)
    words = "-".join("".join(kept).split())[:NAME_CHARACTERS].strip("-")
    day = time.strftime("%Y-%m-%d", time.gmtime(created_at))
    return f"{day}-{words or 'video'}"


@router.get(
    "/images/{number}",
    operation_id="downloadImage",
    summary="A conditioning image",
    response_class=FileResponse,
    responses={
        200: {"content": {"image/png": BINARY}, "description": "The image, as it was taken in."},
        206: {"content": PARTS_OF_IMAGES, "description": "A part of it, or several."},
        304: {"description": "The client has it."},
        **errors(404, 412, 416),
    },
)
async def image(
    request: Request,
    job: TheJob,
    service: TheService,
    number: Annotated[int, Path(ge=0, le=1000)],
) -> FileResponse:
    """The conditioning image of this number, from 0, in the order of the video's `images`."""
    path = None
    if number < len(job.images):
        path = await _find(request.app.state.pools, job, service, image_name(number))
    if path is None:
        raise ApiError(404, "This video has no such image.", "image_not_found", "number")
    return File(path, media_type="image/png", headers=KEPT)
