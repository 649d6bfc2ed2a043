"""Cross-origin requests: which sites are allowed, and the headers for their browsers."""

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from entracte.errors import RequestError

from .errors import ApiError, error_response

ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[1-9][0-9]{0,4}))?"
)
USUAL_PORTS = {"http": "80", "https": "443"}

# Headers that a page may read, beyond those that browsers expose anyway.
EXPOSED = (
    "accept-ranges",
    "allow",
    "content-disposition",
    "content-range",
    "etag",
    "openai-poll-after-ms",
    "retry-after",
    "www-authenticate",
    "x-request-id",
    "x-should-retry",
)


class Cors(CORSMiddleware):
    """The framework's middleware for listed origins, with errors in our form."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = ApiError(400, "Pages of this site may not ask for this.", "wrong_origin")
        return error_response(error)


def require_origins(origins: Sequence[str]) -> None:
    """Raise RequestError for what browsers do not send as an origin, or any page could have.

    Origins are compared as strings, because browsers write each in one way.
    """
    for origin in origins:
        found = ORIGIN.fullmatch(origin)
        if origin in ("*", "null"):
            words = "would let in pages of anybody; name the sites"
        elif found is None:
            words = (
                "is not an origin; write https://studio.example.com, in lower case and without /"
            )
        elif found["port"] and found["port"] == USUAL_PORTS.get(found["scheme"]):
            words = f"has the usual port, which browsers leave out; leave out :{found['port']}"
        else:
            continue
        raise RequestError(f"`cors_origin` {origin!r} {words}", settings=("cors_origin",))
