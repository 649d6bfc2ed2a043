"""A small HTTP client for URLs that others chose. It asks a guard before every connection.

It has no cookies, no credentials, no proxy and no kept connections, so nothing of one request
reaches another host. It asks for bodies as they are, and takes no compressed ones: what is counted
is what is returned.
"""

import math
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpcore2

from .connection import Deadline, PinnedBackend
from .errors import OutboundFailed, OutboundRefused
from .guard import Guard, Target
from .urls import Url

MAX_REDIRECTS = 3
REDIRECTS = frozenset((301, 302, 303, 307, 308))
USER_AGENT = "entracte"

_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Client:
    """Safe for threads: it holds nothing of a request.

    seconds: for a whole request, with its redirects. Only the system's resolver is not held to it.
    ssl_context: how certificates are checked; by default against the system's authorities.
    """

    def __init__(
        self, guard: Guard, seconds: float = 30.0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.guard = guard
        self._seconds = seconds
        self._ssl_context = ssl_context or httpcore2.default_ssl_context()

    def get(self, url: str, max_bytes: int, seconds: float = math.inf) -> tuple[bytes, str]:
        """The body at a URL, and its content type ("" where there is none).

        seconds: for this request, where that is less than what all have.

        Follows at most MAX_REDIRECTS redirects, each judged as the URL itself.
        Raises OutboundRefused, or OutboundFailed: also for a status other than 2xx, and for a body
        of more than `max_bytes`.
        """
        deadline = Deadline(min(seconds, self._seconds))
        target = self.guard.check(url)
        for _ in range(MAX_REDIRECTS + 1):
            with self._request("GET", target, deadline) as response:
                location = _header(response, b"location")
                if response.status not in REDIRECTS or location is None:
                    return _body(response, target.url, max_bytes), _content_type(response)
            target = self.guard.check(target.url.join(location))
        raise OutboundFailed(f"{target.url.authority} redirects more than {MAX_REDIRECTS} times")

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send a body, and return the status of the answer, which is not read any further.

        No redirect is followed. Raises OutboundRefused, also for header names or values that are
        not plain ASCII without control characters, or OutboundFailed.
        """
        _require_plain(headers)
        deadline = Deadline(self._seconds)
        target = self.guard.check(url)
        with self._request("POST", target, deadline, headers, body) as response:
            return response.status

    @contextmanager
    def _request(
        self,
        method: str,
        target: Target,
        deadline: Deadline,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Iterator[httpcore2.Response]:
        """One request on a connection of its own, closed when the block ends."""
        url = httpcore2.URL(
            scheme=target.url.scheme,
            host=target.url.host,
            port=target.url.port,
            target=target.url.target,
        )
        ours = {
            "host": target.url.authority,
            "user-agent": USER_AGENT,
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
        }
        given = {name.lower(): value for name, value in (headers or {}).items()}
        host = target.url.authority
        try:
            with (
                httpcore2.HTTPConnection(
                    url.origin,
                    ssl_context=self._ssl_context,
                    network_backend=PinnedBackend(target.addresses, deadline),
                ) as connection,
                connection.stream(
                    method, url, headers=list((given | ours).items()), content=body
                ) as response,
            ):
                yield response
        except (TimeoutError, httpcore2.TimeoutException):
            raise OutboundFailed(f"{host} took too long") from None
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise OutboundFailed(f"{host} has no certificate that we trust") from None
            raise OutboundFailed(f"{host} cannot be reached") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError):
            raise OutboundFailed(f"{host} broke off, or does not speak HTTP") from None


def _body(response: httpcore2.Response, url: Url, max_bytes: int) -> bytes:
    if not 200 <= response.status < 300:
        raise OutboundFailed(f"{url.authority} answered with the status {response.status}")
    if (_header(response, b"content-encoding") or "identity").lower() != "identity":
        raise OutboundFailed(f"{url.authority} sent a compressed body, unasked")
    body = bytearray()
    for piece in response.iter_stream():
        body += piece
        if len(body) > max_bytes:
            raise OutboundFailed(f"{url.authority} sent more than {max_bytes} bytes")
    return bytes(body)


def _content_type(response: httpcore2.Response) -> str:
    return _header(response, b"content-type") or ""


def _header(response: httpcore2.Response, name: bytes) -> str | None:
    """The first header of a name, given in lower case."""
    for found, value in response.headers:
        if found.lower() == name:
            return value.decode("latin-1")
    return None


def _require_plain(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _NAME.fullmatch(name.lower()) or not _VALUE.fullmatch(value):
            raise OutboundRefused("a header holds characters that headers may not")
