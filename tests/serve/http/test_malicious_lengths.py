"""Bodies that lie about their length, or have none."""

import json
import socket
from collections.abc import Iterator

import pytest

from entracte.serve.http.limits import WITHOUT_KEY_BYTES

from ..running import PATIENCE, Local, small
from .asking import PROMPT, error_of, post, raw, request
from .conftest import BODY_BYTES

BODY = json.dumps(small(PROMPT)).encode()
PIECE = b"2000\r\n" + b"x" * 0x2000 + b"\r\n"


def chunked(path: str, pieces: int, *headers: str) -> bytes:
    """A chunked body of so many pieces of 8 KiB, that does not end."""
    told = ("Transfer-Encoding: chunked", "Content-Type: application/json", *headers)
    return request("POST", path, *told) + PIECE * pieces


def with_key(running: Local) -> str:
    return f"Authorization: Bearer {running.key}"


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/estimate"])
def test_a_length_over_the_limit_is_refused_before_anything_is_sent(
    attacked_narrow: Local, path: str
) -> None:
    length = str(BODY_BYTES + 1)
    answer = raw(attacked_narrow, post(attacked_narrow, path, b"", length=length))
    error_of(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    "length", ["-1", "abc", "1e3", "0x10", "5, 6", "+5", "", " ", "9" * 30, "9" * 5000]
)
def test_a_length_that_is_no_length_is_refused(attacked: Local, length: str) -> None:
    before = len(attacked.service.store.known())
    answer = raw(attacked, post(attacked, "/v1/videos", BODY, length=length))
    assert answer is not None
    assert answer.status_code in (400, 413)  # 400 by the HTTP library, before there is a request
    assert len(attacked.service.store.known()) == before


def test_a_body_that_is_longer_than_told_is_cut(attacked: Local) -> None:
    data = post(attacked, "/v1/videos", BODY, length=str(len(BODY) - 5))
    error_of(raw(attacked, data), 400, "invalid_json")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_body_that_ends_too_early_makes_no_video(attacked: Local, kind: str) -> None:
    before = len(attacked.service.store.known())
    data = request(
        "POST",
        "/v1/videos",
        with_key(attacked),
        f"Content-Type: {kind}",
        f"Content-Length: {len(BODY) + 1000}",
    )
    answer = raw(attacked, data + BODY, hang_up=True)
    assert answer is None or answer.status_code == 400
    assert len(attacked.service.store.known()) == before


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/estimate"])
def test_a_chunked_body_is_refused_once_it_has_passed_the_limit(
    attacked_narrow: Local, path: str
) -> None:
    pieces = BODY_BYTES // 0x2000 + 1
    answer = raw(attacked_narrow, chunked(path, pieces, with_key(attacked_narrow)))
    error_of(answer, 413, "body_too_large")


def test_a_chunked_form_is_refused_once_it_has_passed_the_limit(attacked_narrow: Local) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="input_reference"; filename="a"\r\n\r\n'
        for _ in range(BODY_BYTES // 4096 + 1):
            yield b"x" * 4096

    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = attacked_narrow.client.post("/v1/videos", content=pieces(), headers=kind)
    error_of(answer, 413, "body_too_large")


def test_a_chunked_body_below_the_limit_is_taken(attacked: Local) -> None:
    kind = {"content-type": "application/json"}
    pieces = (BODY[start : start + 7] for start in range(0, len(BODY), 7))
    answer = attacked.client.post("/v1/videos/estimate", content=pieces, headers=kind)
    assert answer.status_code == 200


@pytest.mark.parametrize("size", [b"zz", b"-5", b"f" * 40])
def test_a_damaged_chunk_is_refused(attacked: Local, size: bytes) -> None:
    data = chunked("/v1/videos", 0, with_key(attacked)) + size + b"\r\n{}\r\n"
    answer = raw(attacked, data)
    assert answer is None or answer.status_code == 400


def test_who_has_no_key_may_send_no_more_than_a_key(attacked: Local) -> None:
    length = f"Content-Length: {WITHOUT_KEY_BYTES + 1}"
    told = request("POST", "/session", length, "Content-Type: application/json")
    error_of(raw(attacked, told), 413, "body_too_large")
    pieces = WITHOUT_KEY_BYTES // 0x2000 + 1
    error_of(raw(attacked, chunked("/session", pieces)), 413, "body_too_large")


def test_who_has_no_key_is_refused_before_the_body_is_sent(attacked: Local) -> None:
    told = request("POST", "/v1/videos", "Content-Length: 60000000")
    error_of(raw(attacked, told), 401, "missing_api_key")


def test_those_who_send_nothing_keep_nobody_waiting(attacked: Local) -> None:
    host, port = attacked.url.removeprefix("http://").split(":")
    unfinished = post(attacked, "/v1/videos", b"{", length="1000")
    waiting = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(60)]
    try:
        for connection in waiting:
            connection.sendall(unfinished)
        video = attacked.create(PROMPT)
        assert attacked.ended(video["id"])["status"] == "completed"
    finally:
        for connection in waiting:
            connection.close()
