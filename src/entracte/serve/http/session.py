"""Sign-in for the page, by cookie: its videos and pictures cannot send a header."""

import anyio
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from entracte.serve.sessions import SESSION_SECONDS

from .credentials import Credentials, cookie_name, is_secure
from .depends import TheService
from .errors import ApiError
from .openapi import errors, json_body
from .read_body import read_json
from .schemas import Session

router = APIRouter(prefix="/session")


class SignIn(BaseModel):
    """An API key."""

    key: str


@router.get("", operation_id="session", summary="Whether you are signed in")
async def session(request: Request, service: TheService) -> Session:
    """Whether this browser is signed in. Needs no key."""
    if service.settings.auth == "off":
        return Session(needed=False, signed_in=True)
    credentials: Credentials = request.app.state.credentials
    return Session(needed=True, signed_in=await credentials.key_of(request) is not None)


@router.post(
    "",
    operation_id="signIn",
    summary="Sign the page in",
    status_code=204,
    responses=errors(413),
    openapi_extra=json_body(SignIn),
)
async def sign_in(request: Request, service: TheService) -> Response:
    """Exchange a key for a cookie that scripts cannot read and other sites cannot send."""
    given = await read_json(request, SignIn)
    credentials: Credentials = request.app.state.credentials
    key = await credentials.find(service.keys, given.key.strip())
    if key is None:
        headers = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "This API key is not known.", "invalid_api_key", "key", headers)
    response = Response(status_code=204)
    response.set_cookie(
        cookie_name(request),
        await anyio.to_thread.run_sync(service.sessions.begin, key),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=is_secure(request),
    )
    return response


@router.delete(
    "",
    operation_id="signOut",
    summary="Sign the page out",
    status_code=204,
    responses=errors(),
)
def sign_out(request: Request, service: TheService) -> Response:
    """End the session of this browser."""
    name = cookie_name(request)
    if name in request.cookies:
        service.sessions.end(request.cookies[name])
    response = Response(status_code=204)
    response.delete_cookie(name, secure=is_secure(request), httponly=True, samesite="strict")
    return response
