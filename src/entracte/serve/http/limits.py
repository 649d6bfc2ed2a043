"""A limit for the body of every request, whatever its headers say."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, error_response

# What may be sent without a key: one, to sign in.
WITHOUT_KEY_BYTES = 16 * 1024


class BodyLimit:
    """Refuses longer bodies: at once where the length is told, else as soon as it is passed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = "key" in scope.get("state", {})
        limit = self._max_bytes if known else min(self._max_bytes, WITHOUT_KEY_BYTES)
        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdecimal() or int(told) > limit:
            await error_response(_too_large(limit))(scope, receive, send)
            return
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> ApiError:
    size = f"{limit / 2**20:g} MiB" if limit >= 2**20 else f"{limit:,} bytes"
    words = f"The request is larger than {size}."
    return ApiError(413, words, "body_too_large", headers={"Connection": "close"})
