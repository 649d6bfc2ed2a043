"""A small HTTP client for URLs that others chose. It asks a guard before every connection.

It connects only to the addresses that the guard returned, while the HTTP library knows the URL's
own host (for the Host header and the certificate). It sends no cookies or credentials, uses no
proxy and keeps no connections, so nothing of one request reaches another host. It refuses
compressed bodies: the bytes counted are the bytes returned.
"""

import math
import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpcore2

from .errors import OutboundFailed, OutboundRefused
from .guard import Guard, Target
from .url import Url

MAX_REDIRECTS = 3
REDIRECTS = frozenset((301, 302, 303, 307, 308))
USER_AGENT = "entracte"

CONNECT_SECONDS = 5.0  # per address, if there are several
PIECE = 16 * 1024

_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Deadline:
    """The time by which a request must be done."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds left, more than 0. Raises TimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Client:
    """Thread-safe: it keeps no state of a request.

    seconds: limit for a whole request with its redirects, name resolution excepted.
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

        seconds: limit for this request, where lower than the client's.

        Follows at most MAX_REDIRECTS redirects, each checked like the URL itself.
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
        """Send a body, and return the status of the response, whose body is not read.

        Redirects are not followed. Raises OutboundRefused, also for header names or values that are
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
        """One request on its own connection, closed at the end of the block."""
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
    """The first header with a name in lower case."""
    for found, value in response.headers:
        if found.lower() == name:
            return value.decode("latin-1")
    return None


def _require_plain(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _NAME.fullmatch(name.lower()) or not _VALUE.fullmatch(value):
            raise OutboundRefused("a header holds characters that headers may not")


class PinnedBackend(httpcore2.NetworkBackend):
    """Connects to the first of some addresses that answers, whatever host it is asked for."""

    def __init__(self, addresses: Sequence[str], deadline: Deadline) -> None:
        self._addresses = tuple(addresses)
        self._deadline = deadline
        self._dialler = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        *others, last = self._addresses
        for address in others:
            seconds = min(CONNECT_SECONDS, self._deadline.left())
            try:
                stream = self._dialler.connect_tcp(
                    address, port, seconds, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
            return _BoundedStream(stream, self._deadline)
        stream = self._dialler.connect_tcp(
            last, port, self._deadline.left(), local_address, socket_options
        )
        return _BoundedStream(stream, self._deadline)


class _BoundedStream(httpcore2.NetworkStream):
    """Every wait ends at the deadline; a timeout per wait would restart with each byte."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        for start in range(0, len(buffer), PIECE):
            self._stream.write(buffer[start : start + PIECE], self._deadline.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)
