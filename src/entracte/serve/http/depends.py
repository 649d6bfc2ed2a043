"""What routes are given: the service, and who asks."""

from typing import Annotated

from fastapi import Depends, Path, Request

from entracte.serve.data_folder import ID
from entracte.serve.jobs.job import Job
from entracte.serve.keys import Key
from entracte.serve.service import Service

from .errors import no_such_video


def the_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def the_key(request: Request) -> Key:
    """Whose key it is; the gate before all routes has put it there."""
    key: Key = request.state.key
    return key


TheService = Annotated[Service, Depends(the_service)]
TheKey = Annotated[Key, Depends(the_key)]


def the_job(
    service: TheService,
    key: TheKey,
    video_id: Annotated[str, Path(description="`video_` and 32 hexadecimal digits.")],
) -> Job:
    """The video of this id, if it is the caller's; raises ApiError."""
    job = service.store.find(video_id, key.id) if ID.fullmatch(video_id) else None
    if job is None:
        raise no_such_video()
    return job


TheJob = Annotated[Job, Depends(the_job)]
