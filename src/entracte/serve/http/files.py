"""Files as responses: whole, in ranges, or not at all if the client has them already."""

from email.utils import parsedate_to_datetime
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .errors import ApiError

# Headers of a 200 that a 304 repeats (RFC 9110, section 15.4.5).
REPEATED = ("cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary")


class File(FileResponse):
    """The framework's response, which supports ranges; adds conditional requests and our errors."""

    def __init__(
        self,
        path: Path,
        media_type: str,
        headers: dict[str, str],
        filename: str | None = None,
        content_disposition_type: str = "attachment",
    ) -> None:
        found = path.stat()
        super().__init__(
            path,
            media_type=media_type,
            headers=headers,
            filename=filename,
            stat_result=found,
            content_disposition_type=content_disposition_type,
        )
        self._modified = int(found.st_mtime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def unless_wrong(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                length = Headers(raw=message["headers"]).get("content-range")
                headers = None if length is None else {"Content-Range": length}
                words = "Range: the file has no such part."
                raise ApiError(message["status"], words, "invalid_value", "Range", headers)
            await send(message)

        asked = Headers(scope=scope)
        if self._was_changed(asked):
            words = "The file is another one than the client takes it for."
            raise ApiError(412, words, "precondition_failed")
        if self._is_known(asked):
            kept = {name: self.headers[name] for name in REPEATED if name in self.headers}
            await Response(status_code=304, headers=kept)(scope, receive, send)
            return
        if "range" in asked and not asked["range"].strip().lower().startswith("bytes"):
            scope = _without(scope, b"range")  # of an unknown unit
        await super().__call__(scope, receive, unless_wrong)

    def _was_changed(self, asked: Headers) -> bool:
        """RFC 9110, section 13.2.2, steps 1 and 2."""
        if (wanted := asked.get("if-match")) is not None:
            return not self._is_named(wanted, weakly=False)
        since = _seconds(asked.get("if-unmodified-since"))
        return since is not None and self._modified > since

    def _is_known(self, asked: Headers) -> bool:
        """RFC 9110, section 13.2.2, steps 3 and 4."""
        if (known := asked.get("if-none-match")) is not None:
            return self._is_named(known, weakly=True)
        since = _seconds(asked.get("if-modified-since"))
        return since is not None and self._modified <= since

    def _is_named(self, tags: str, weakly: bool) -> bool:
        if tags.strip() == "*":
            return True
        named = [tag.strip() for tag in tags.split(",")]
        if weakly:
            named = [tag.removeprefix("W/") for tag in named]
        return self.headers["etag"] in named


def _seconds(date: str | None) -> float | None:
    """A date as Unix time; None if it is missing or cannot be parsed."""
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def _without(scope: Scope, name: bytes) -> Scope:
    return {**scope, "headers": [each for each in scope["headers"] if each[0] != name]}
