"""Dependencies of routes: the service, and the caller."""

from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Path, Request

from entracte.serve.data_folder import ID
from entracte.serve.jobs.job import Job
from entracte.serve.keys import Key
from entracte.serve.service import Service

from .errors import ApiError, no_such_video

# Coroutines, because the framework would run plain functions in threads.


async def the_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def the_key(request: Request) -> Key:
    """The caller's key, found by the authentication middleware."""
    key: Key = request.state.key
    return key


TheService = Annotated[Service, Depends(the_service)]
TheKey = Annotated[Key, Depends(the_key)]


async def an_operator(key: TheKey) -> None:
    """Raise ApiError unless the caller's key is an operator's."""
    if not key.operator:
        words = "This is for operators' keys: entracte keys add NAME --operator."
        raise ApiError(403, words, "operator_only")


async def the_job(
    service: TheService,
    key: TheKey,
    video_id: Annotated[str, Path(description="`video_` and 32 hexadecimal digits.")],
) -> Job:
    """The video of this id, if it is the caller's; raises ApiError."""
    if not ID.fullmatch(video_id):
        raise no_such_video()
    job = await to_thread.run_sync(service.store.find, video_id, key.id)
    if job is None:
        raise no_such_video()
    return job


TheJob = Annotated[Job, Depends(the_job)]
