"""Videos: get, list, cancel, delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from entracte.serve.data_folder import DataFolderError

from .depends import TheJob, TheKey, TheService
from .errors import ApiError, no_such_video
from .openapi import errors
from .schemas import DeletedVideo, Video, VideoList
from .serializers import video_view

router = APIRouter(prefix="/v1/videos")

# When clients should poll again.
POLL_MS = 1000


@router.get("", operation_id="listVideos", summary="Your videos", responses=errors(404))
def list_videos(
    service: TheService,
    key: TheKey,
    limit: Annotated[int, Query(ge=0, le=100)] = 20,
    after: Annotated[
        str | None,
        Query(max_length=100, description="The last video of the page before; it may be deleted."),
    ] = None,
    order: Literal["asc", "desc"] = "desc",
) -> VideoList:
    """A page of your videos, the newest first unless `order` says otherwise."""
    number = None
    if after is not None:
        number = service.store.place(after, key.id)
        if number is None:
            raise no_such_video("after")
    jobs = service.store.page(key.id, number, limit + 1, order == "desc")
    line = service.queue.now()
    videos = [video_view(job, line) for job in jobs[:limit]]
    return VideoList(
        data=videos,
        first_id=videos[0].id if videos else None,
        last_id=videos[-1].id if videos else None,
        has_more=len(jobs) > limit,
    )


@router.get("/{video_id}", operation_id="retrieveVideo", summary="One video", responses=errors(404))
async def retrieve(job: TheJob, service: TheService, response: Response) -> Video:
    """A video. If it failed, `status` and `error` say so."""
    if not job.ended:
        response.headers["openai-poll-after-ms"] = str(POLL_MS)
    return video_view(job, service.queue.now())


@router.post(
    "/{video_id}/cancel",
    operation_id="cancelVideo",
    summary="Cancel a video",
    responses=errors(404),
)
def cancel(job: TheJob, service: TheService) -> Video:
    """Stop a video at its next step; it ends as failed, with the code `cancelled`.

    A finished video is left as it is.
    """
    cancelled = service.cancel(job)
    if cancelled is None:
        raise no_such_video()
    return video_view(cancelled, service.queue.now())


@router.delete(
    "/{video_id}", operation_id="deleteVideo", summary="Delete a video", responses=errors(404)
)
def delete(job: TheJob, service: TheService) -> DeletedVideo:
    """Delete a video and its files; a running one is stopped."""
    try:
        service.delete(job)
    except DataFolderError as error:
        service.log.error("files not removed", video=job.id, why=str(error))
        words = "The server cannot remove the files of this video."
        raise ApiError(500, words, "storage_failed", "video_id") from None
    return DeletedVideo(id=job.id)
