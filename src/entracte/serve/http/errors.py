"""Errors in the form of OpenAI's API: `{"error": {message, type, param, code}}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.status import (
    HTTP_400_BAD_REQUEST,
    HTTP_403_FORBIDDEN,
    HTTP_404_NOT_FOUND,
    HTTP_405_METHOD_NOT_ALLOWED,
    HTTP_413_CONTENT_TOO_LARGE,
    HTTP_429_TOO_MANY_REQUESTS,
)
from structlog.typing import FilteringBoundLogger

from entracte.errors import MediaError
from entracte.serve.data_folder import DataFolderError
from entracte.serve.errors import Draining, ImageTooLarge, RequestRefused, UnknownModel
from entracte.serve.jobs.admission import OwnerGone
from entracte.serve.jobs.failures import DatabaseError
from entracte.validation import plain

TYPES: Mapping[int, str] = {
    HTTP_403_FORBIDDEN: "permission_error",
    HTTP_429_TOO_MANY_REQUESTS: "rate_limit_error",
}

# Statuses of refused requests; 400 for all others.
STATUSES: Mapping[type[RequestRefused], int] = {
    UnknownModel: HTTP_404_NOT_FOUND,
    ImageTooLarge: HTTP_413_CONTENT_TOO_LARGE,
}


class ApiError(Exception):
    """An error for a client. param: the field at fault. code: for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(HTTP_400_BAD_REQUEST, message, code, param)


def no_such_video(param: str = "video_id") -> ApiError:
    return ApiError(HTTP_404_NOT_FOUND, "This video does not exist.", "video_not_found", param)


def storage_failed() -> ApiError:
    words = "The server's disk or database fails. Ask again later."
    return ApiError(503, words, "storage_failed", headers={"Retry-After": "10"})


def of_refused(error: RequestRefused) -> ApiError:
    status = STATUSES.get(type(error), HTTP_400_BAD_REQUEST)
    return ApiError(status, error.message, error.code, error.param)


def error_body(
    status: int, message: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    kind = TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_response(error: ApiError) -> JSONResponse:
    headers = dict(error.headers or {})
    if error.status < HTTP_429_TOO_MANY_REQUESTS:
        headers.setdefault("x-should-retry", "false")  # OpenAI's clients would retry a 409
    body = error_body(error.status, error.message, error.code, error.param)
    return JSONResponse(body, error.status, headers)


def _allowed(request: Request, routes: Sequence[Route]) -> list[str]:
    """The methods of all routes with a request's path."""
    found: set[str] = set()
    for route in routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


def add_error_handlers(app: FastAPI, routes: Sequence[Route]) -> None:
    """Give all errors one form, the framework's included.

    routes: all routes, to list the methods allowed for a path.
    """

    @app.exception_handler(ApiError)
    async def of_ours(_: Request, error: ApiError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestRefused)
    async def of_requests(_: Request, error: RequestRefused) -> JSONResponse:
        return error_response(of_refused(error))

    @app.exception_handler(OwnerGone)
    async def of_revoked_keys(_: Request, __: OwnerGone) -> JSONResponse:
        return error_response(ApiError(401, "This API key is not known.", "invalid_api_key"))

    @app.exception_handler(Draining)
    async def of_the_end(_: Request, __: Draining) -> JSONResponse:
        headers = {"Retry-After": "10"}
        words = "The server is stopping."
        return error_response(ApiError(503, words, "draining", headers=headers))

    @app.exception_handler(RequestValidationError)
    async def of_parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        finding = error.errors()[0]
        where = str(finding["loc"][-1])
        return error_response(bad_request(f"{where}: {plain(finding)}", where, "invalid_value"))

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        words, code, headers = error.detail, None, error.headers
        if error.status_code == HTTP_404_NOT_FOUND:
            words, code = f"There is nothing at {request.url.path[:200]!r}.", "not_found"
        elif error.status_code == HTTP_405_METHOD_NOT_ALLOWED:
            words, code = f"{request.method} is not possible here.", "method_not_allowed"
            headers = {"Allow": ", ".join(_allowed(request, routes))}
        return error_response(ApiError(error.status_code, words, code, headers=headers))

    @app.exception_handler(DatabaseError)
    @app.exception_handler(DataFolderError)
    @app.exception_handler(MediaError)
    async def of_the_disk(request: Request, error: Exception) -> JSONResponse:
        log: FilteringBoundLogger = request.app.state.service.log
        log.error("the disk or the database failed", error=str(error))
        return error_response(storage_failed())
