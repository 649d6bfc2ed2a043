"""Connections of clients that send nothing, half of something, or a byte at a time."""

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from entracte.serve.http.connections import RESERVE, most_connections

from ..fake_server import Process, fake_server
from ..running import Local, local, small
from .asking import Answer, error_of, png, post, raw, request

SECONDS = 20.0  # for what the server does at once, beside any load


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Gives up soon on what does not come, and takes few connections."""
    limits = {"header_seconds": 0.5, "body_seconds": 0.5}
    folder = tmp_path_factory.mktemp("impatient") / "data"
    with local(folder, max_connections=40, max_connections_per_address=30, **limits) as running:
        yield running


def connect(url: str, *sent: bytes) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=SECONDS)
    for data in sent:
        connection.sendall(data)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that still comes until the server hangs up."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def alive(url: str) -> bool:
    return httpx2.get(f"{url}/liveness", timeout=SECONDS).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (b"G", b"408"),
        (b"GET /liveness HTTP/1.1\r\nHost: a\r\n", b"408"),
        (b"GET /liveness HTTP/1.1\r\nHost: a\r\n\r\nGET /live", b"408"),
    ],
)
def test_a_header_that_does_not_come_is_waited_for_so_long(
    impatient: Local, sent: bytes, status: bytes | None
) -> None:
    with connect(impatient.url, sent) as connection:
        received = rest(connection)
    last = received[received.rfind(b"HTTP/1.1 ") :]
    assert last[9:12] == (status or b"")
    if status is not None:
        error = json.loads(last.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == "request_timeout"


@pytest.mark.parametrize(
    ("kind", "begun"), [("application/json", b'{"a'), ("multipart/form-data; boundary=b", b"--b")]
)
def test_a_body_that_does_not_come_is_waited_for_so_long(
    impatient: Local, kind: str, begun: bytes
) -> None:
    headers = (
        f"Authorization: Bearer {impatient.key}",
        f"Content-Type: {kind}",
        "Content-Length: 1000",
    )
    with connect(impatient.url, request("POST", "/v1/videos", *headers), begun) as connection:
        assert rest(connection) == b""
    with connect(impatient.url, request("POST", "/session", *headers[1:])) as connection:
        assert rest(connection) == b""


def test_a_body_that_comes_slowly_but_comes_is_taken(impatient: Local) -> None:
    """Slower than a body may take that does not come: it is looked at while it comes."""
    picture = png() + bytes(60_000)
    boundary = b"--b\r\nContent-Disposition: form-data; name="
    parts = [
        boundary + b'"%s"\r\n\r\n%s\r\n' % (name.encode(), str(value).encode())
        for name, value in small().items()
    ]
    file = boundary + b'"input_reference"; filename="a.png"\r\n\r\n' + picture + b"\r\n"
    body = b"".join([*parts, file, b"--b--\r\n"])
    head = request(
        "POST",
        "/v1/videos",
        f"Authorization: Bearer {impatient.key}",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {len(body)}",
    )
    with connect(impatient.url, head) as connection:
        pieces = [body[at : at + 4096] for at in range(0, len(body), 4096)]
        for piece in pieces:
            connection.sendall(piece)
            # Paced by the wait for an answer that does not come before the end.
            select.select([connection], [], [], 0.1)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_who_only_holds_connections_shuts_nobody_out(impatient: Local) -> None:
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(connect(impatient.url)) for _ in range(200)]
        assert alive(impatient.url)
        assert impatient.client.get("/v1/models").status_code == 200
        for connection in connections:
            assert rest(connection) == b""


@pytest.mark.slow
def test_with_every_connection_in_use_it_still_says_that_it_lives(tmp_path: Path) -> None:
    with local(tmp_path / "data", max_connections=5) as running, contextlib.ExitStack() as held:
        for _ in range(4):  # and the client's own
            held.enter_context(running.client.stream("GET", "/v1/events"))
        while True:
            answer = httpx2.get(f"{running.url}/v1/models", timeout=SECONDS)
            if answer.status_code == 503:
                break
            held.enter_context(running.client.stream("GET", "/v1/events"))
        error_of(answer, 503, "too_many_connections")
        assert int(answer.headers["retry-after"]) > 0
        for _ in range(2 * RESERVE):
            assert alive(running.url)
        waiting = [held.enter_context(connect(running.url)) for _ in range(2 * RESERVE)]
        refused = [rest(each) for each in waiting]
        assert any(b"too_many_connections" in each for each in refused)
        assert alive(running.url)


@pytest.mark.slow
def test_one_address_has_no_more_than_its_share(tmp_path: Path) -> None:
    limits = {"max_connections": 20, "max_connections_per_address": 3}
    with local(tmp_path / "data", **limits) as running, contextlib.ExitStack() as held:
        stream = request("GET", "/v1/events", f"Authorization: Bearer {running.key}")
        port = int(running.url.rpartition(":")[2])

        def ask(address: str) -> bytes:
            connection = held.enter_context(
                socket.create_connection(("127.0.0.1", port), SECONDS, (address, 0))
            )
            connection.sendall(stream)
            return connection.recv(15)

        answers = [ask("127.0.0.2") for _ in range(5)]
        assert answers == [b"HTTP/1.1 200 OK"] * 3 + [b"HTTP/1.1 503 Se"] * 2
        assert ask("127.0.0.3") == b"HTTP/1.1 200 OK"


@pytest.mark.slow
def test_a_trusted_proxy_speaks_for_many(tmp_path: Path) -> None:
    limits = {"max_connections_per_address": 2, "trusted_proxy": ("127.0.0.1",)}
    with local(tmp_path / "data", **limits) as running, contextlib.ExitStack() as held:
        for _ in range(5):
            answer = held.enter_context(running.client.stream("GET", "/v1/events"))
            assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "key", "length", "status"),
    [
        ("/v1/videos", False, 60_000_000, 401),
        ("/nothing", True, 60_000_000, 404),
        ("/v1/videos", True, 400_000_000, 413),
    ],
)
def test_a_body_that_is_not_wanted_is_not_read_without_end(
    impatient: Local, path: str, key: bool, length: int, status: int
) -> None:
    headers = [f"Authorization: Bearer {impatient.key}"] if key else []
    head = request("POST", path, *headers, f"Content-Length: {length}").replace(
        b"Connection: close\r\n", b""
    )
    sent = 0
    with connect(impatient.url, head) as connection:
        answer = b""
        while b"\r\n\r\n" not in answer:  # before the body: nobody waits for it
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        with contextlib.suppress(ConnectionError):
            while sent < length:
                sent += connection.send(bytes(65536))
    assert sent < length


def test_a_short_body_that_is_not_wanted_is_passed_over(impatient: Local) -> None:
    """The connection is kept: clients do not hear in time that it was not."""
    head = request("POST", "/nothing", "Content-Length: 200000")
    head = head.replace(b"Connection: close\r\n", b"")
    with connect(impatient.url, head) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")
        connection.sendall(bytes(200_000) + request("GET", "/liveness"))
        assert rest(connection).endswith(b'{"status":"alive"}')


def test_what_is_not_http_is_told_so_in_the_usual_form(attacked: Local) -> None:
    for data in (b"EHLO example.com\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\r\n\r\n"):
        error_of(raw(attacked, data), 400, "invalid_http")


def test_a_chunk_that_is_none_ends_the_request(attacked: Local) -> None:
    head = post(attacked, "/v1/videos", b"", "Transfer-Encoding: chunked")
    head = head.replace(b"Content-Length: 0\r\n", b"")
    answer: Answer | None = raw(attacked, head + b"zz\r\nxx\r\n")
    error_of(answer, 400, "invalid_http")


@pytest.mark.parametrize(("files", "most"), [(1_000_000, 1000), (1024, 768), (100, 50)])
def test_there_are_files_left_for_all_else(files: int, most: int) -> None:
    assert most_connections(1000, files) == most


@pytest.fixture(scope="module")
def short_of_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with fake_server(tmp_path_factory.mktemp("files") / "data", files=400) as process:
        yield process


@pytest.mark.slow
def test_more_connections_than_files_shut_nobody_out(short_of_files: Process) -> None:
    url = short_of_files.url
    with contextlib.ExitStack() as held:
        for _ in range(500):
            held.enter_context(connect(url))
        assert alive(url)
    assert alive(url)
    assert len(short_of_files.log) < 20_000
    assert "Traceback" not in short_of_files.log
