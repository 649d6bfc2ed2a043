"""Requests as no client library sends them, and what every answer is held to."""

import contextlib
import io
import json
import socket
from dataclasses import dataclass
from typing import Any

import httpx2
from PIL import Image

from ..running import PATIENCE, Local

# Given to every request that tries something, so that the log can be searched for it.
PROMPT = "whispered behind the curtain"

TYPES = {403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Answer:
    """As `httpx2.Response`, of what `raw` asked."""

    status_code: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


def raw(running: Local, data: bytes, hang_up: bool = False) -> Answer | None:
    """Send bytes as they are; the first answer, None where the server only closes.

    hang_up: say that nothing more comes, whatever was announced.
    """
    address = running.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((address[0], int(address[1])), timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # it has heard enough
            connection.sendall(data)
        with contextlib.suppress(ConnectionError):
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            while not _whole(received) and (piece := connection.recv(65536)):
                received += piece
    return _answer(received)


def post(running: Local, path: str, body: bytes, *headers: str, length: str | None = None) -> bytes:
    """A POST of JSON with the key. length: what its Content-Length claims."""
    told = (
        f"Content-Length: {len(body) if length is None else length}",
        f"Authorization: Bearer {running.key}",
        "Content-Type: application/json",
        *headers,
    )
    host = running.url.removeprefix("http://")
    return request("POST", path, *told, host=host) + body


def request(method: str, path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def error_of(
    answer: httpx2.Response | Answer | None,
    status: int,
    code: str | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    """The one form that errors have; code and param where they are to be known."""
    assert answer is not None, "there is no answer"
    assert answer.status_code == status, answer.content[:500]
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    usual = "server_error" if status >= 500 else "invalid_request_error"
    assert error["type"] == TYPES.get(status, usual)
    assert error["message"]
    assert "Traceback" not in error["message"]
    if code is not None:
        assert error["code"] == code, error
    if param is not None:
        assert error["param"] == param, error
    return error


def png(size: tuple[int, int] = (16, 16), color: str = "red", mode: str = "RGB") -> bytes:
    return encoded(Image.new(mode, size, color), "PNG")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    told = _headers(head).get("content-length") if end else None
    return told is not None and len(body) >= int(told)


def _answer(received: bytes) -> Answer | None:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    return Answer(int(head.split(b" ")[1]), _headers(head), body)


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
