"""Limits for the bodies of requests, each and all together."""

from collections import Counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from entracte.serve.keys import Key
from entracte.units import MIB, mebibytes

from .errors import ApiError, error_response

# Bytes of a body without a key: enough to sign in.
WITHOUT_KEY_BYTES = 16 * 1024

# Smaller bodies are not counted: the limit on connections bounds them.
SMALL_BYTES = 128 * 1024

# How many bodies of the largest size may be in memory at once: in total, and per key.
LARGEST_AT_ONCE = 8
LARGEST_OF_A_KEY = 2


class Bodies:
    """Counts the memory of request bodies in progress. Lives on the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._most = LARGEST_AT_ONCE * max_bytes
        self._most_of_a_key = LARGEST_OF_A_KEY * max_bytes
        self._of_keys: Counter[str] = Counter()

    def take(self, key: str, nbytes: int) -> bool:
        """Whether there is room for that many more bytes; return them with `free`."""
        of_key = self._of_keys[key] + nbytes
        if of_key > self._most_of_a_key or self._of_keys.total() + nbytes > self._most:
            return False
        self._of_keys[key] = of_key
        return True

    def free(self, key: str, nbytes: int) -> None:
        self._of_keys[key] -= nbytes
        if not self._of_keys[key]:
            del self._of_keys[key]


class BodyLimit:
    """Refuses longer bodies: at once if the length is declared, else as soon as it is exceeded."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._bodies = Bodies(max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key: Key | None = scope.get("state", {}).get("key")
        owner = "" if key is None else key.id
        limit = self._max_bytes if key else min(self._max_bytes, WITHOUT_KEY_BYTES)
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            await error_response(_too_large(limit))(scope, receive, send)
            return
        total = 0
        counted = 0  # in `bodies`

        def count(nbytes: int) -> None:
            nonlocal counted
            if nbytes > SMALL_BYTES and not counted:
                if not self._bodies.take(owner, nbytes):
                    raise _too_many()
                counted = nbytes

        async def limited() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise _too_large(limit)
            if total > SMALL_BYTES:  # of a body without a declared length
                count(limit)
            return message

        try:
            count(int(declared))
            await self._app(scope, limited, send)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
        finally:
            if counted:
                self._bodies.free(owner, counted)


def _too_large(limit: int) -> ApiError:
    size = mebibytes(limit) if limit >= MIB else f"{limit:,} bytes"
    return ApiError(413, f"The request is larger than {size}.", "body_too_large")


def _too_many() -> ApiError:
    words = "Other requests of your key are still being sent. Ask again when they are done."
    return ApiError(429, words, "too_many_bodies", headers={"Retry-After": "5"})
