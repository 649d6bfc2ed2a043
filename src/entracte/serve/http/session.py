"""Signing the page in: its videos and pictures cannot send a header, so it has a cookie."""

import anyio
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from .auth import COOKIE, secret_of
from .depends import TheService
from .documented import errors, json_body
from .errors import ApiError
from .read_body import checked, read_json
from .schemas import Session

router = APIRouter(prefix="/session")

YEAR = 365 * 24 * 3600


class SignIn(BaseModel):
    """An API key."""

    key: str


@router.get("", operation_id="session", summary="Whether you are signed in")
def session(request: Request, service: TheService) -> Session:
    """Needs no key."""
    if service.settings.auth == "off":
        return Session(needed=False, signed_in=True)
    secret = secret_of(request)
    signed_in = secret is not None and service.keys.find(secret) is not None
    return Session(needed=True, signed_in=signed_in)


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
    told = checked(SignIn, await read_json(request))
    secret = told.key.strip()
    if await anyio.to_thread.run_sync(service.keys.find, secret) is None:
        headers = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "This API key is not known.", "invalid_api_key", "key", headers)
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        secret,
        max_age=YEAR,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.delete(
    "",
    operation_id="signOut",
    summary="Sign the page out",
    status_code=204,
    responses=errors(),
)
def sign_out() -> Response:
    """Forget the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE)
    return response
