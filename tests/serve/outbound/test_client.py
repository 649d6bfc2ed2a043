"""The client, against servers on this machine."""

import gzip
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest

from entracte.serve.outbound.client import Client
from entracte.serve.outbound.errors import OutboundFailed, OutboundRefused
from entracte.serve.outbound.guard import Guard

from .servers import (
    LOOPBACK,
    OK,
    Answer,
    Names,
    Served,
    answering,
    client_of,
    redirecting,
    sending,
    serving,
)


def test_get() -> None:
    with serving(OK) as server:
        assert client_of(server).get(server.url + "/a?b=c", 100) == (b"fine", "image/png")
    (request,) = server.requests
    lines = request.decode().lower().split("\r\n")
    assert lines[0] == "get /a?b=c http/1.1"
    assert lines.count(f"host: 127.0.0.1:{server.port}") == 1
    assert "accept-encoding: identity" in lines
    assert "connection: close" in lines
    assert not any(line.startswith(("cookie:", "authorization:")) for line in lines)


def test_get_over_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(OK, "::1") as server:
        assert client_of(server).get(server.url + "/", 100)[0] == b"fine"
    assert f"host: [::1]:{server.port}".encode() in server.requests[0].lower()


def test_a_body_in_chunks() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(sending(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) as server:
        assert client_of(server).get(server.url, 5) == (b"abcde", "")
        with pytest.raises(OutboundFailed, match="more than 4 bytes"):
            client_of(server).get(server.url, 4)


# --- where it connects ---


def test_the_address_that_was_judged_is_the_one_connected_to() -> None:
    """DNS rebinding: the name is somewhere else as soon as it was asked for."""
    with serving(OK) as judged, serving(OK, "127.0.0.2", judged.port) as other:
        names = Names(a_example=[["127.0.0.1"], ["127.0.0.2"]])
        networks = ["127.0.0.1/32"]
        client = Client(Guard([f"a.example:{judged.port}"], True, networks, names))
        url = f"http://a.example:{judged.port}/"
        assert client.get(url, 100)[0] == b"fine"
        with pytest.raises(OutboundRefused, match="not public"):
            client.get(url, 100)
    assert len(judged.requests) == 1
    assert other.requests == []
    assert f"host: a.example:{judged.port}\r\n".encode() in judged.requests[0].lower()


def test_nothing_is_resolved_while_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = []

    def dial(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        dialled.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", dial)
    names = Names(a_example=[["2606:4700::1111", "93.184.215.14"], ["127.0.0.1"]])
    with pytest.raises(OutboundFailed, match=r"a\.example cannot be reached"):
        Client(Guard(["a.example"], False, resolver=names)).get("https://a.example/", 1)
    assert dialled == [("2606:4700::1111", 443), ("93.184.215.14", 443)]


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with serving(OK) as server:
        names = Names(a_example=[["127.0.0.3", "127.0.0.1"]])
        client = Client(Guard([f"a.example:{server.port}"], True, LOOPBACK, names))
        assert client.get(f"http://a.example:{server.port}/", 100)[0] == b"fine"


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(OK) as server, serving(OK) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        client_of(server).get(server.url, 100)
        client_of(server).post(server.url, b"", {})
    assert proxy.requests == []


# --- redirects ---


@pytest.fixture
def inside() -> Iterator[Served]:
    """What a redirect must not reach."""
    with serving(OK, "127.0.0.2") as server:
        yield server


def test_redirects_are_followed() -> None:
    steps: dict[str, Answer] = {
        "/1": redirecting("/2"),
        "/2": redirecting("3?x"),
        "/3?x": redirecting("4#y"),
        "/4": OK,
    }
    with serving(steps) as server:
        assert client_of(server).get(server.url + "/1", 100)[0] == b"fine"
    assert server.paths == ["/1", "/2", "/3?x", "/4"]


def test_redirects_end() -> None:
    with (
        serving(redirecting("/")) as server,
        pytest.raises(OutboundFailed, match="redirects more than 3 times"),
    ):
        client_of(server).get(server.url, 100)
    assert len(server.requests) == 4


def test_a_redirect_to_another_allowed_host(inside: Served) -> None:
    with serving(redirecting(inside.url + "/x")) as server:
        assert client_of(server, inside).get(server.url, 100)[0] == b"fine"
    assert f"host: 127.0.0.2:{inside.port}\r\n".encode() in inside.requests[0].lower()


def test_a_redirect_to_a_host_that_is_not_allowed(inside: Served) -> None:
    with (
        serving(redirecting(inside.url)) as server,
        pytest.raises(OutboundRefused, match="not among"),
    ):
        client_of(server).get(server.url, 100)
    assert inside.requests == []


def test_a_redirect_to_an_address_that_is_not_public(inside: Served) -> None:
    names = Names(in_example=[["127.0.0.2"]])
    with serving(redirecting(f"http://in.example:{inside.port}/")) as server:
        hosts = [f"127.0.0.1:{server.port}", f"in.example:{inside.port}"]
        client = Client(Guard(hosts, True, ["127.0.0.1/32"], names))
        with pytest.raises(OutboundRefused, match="not public"):
            client.get(server.url, 100)
    assert names.asked == ["in.example"]
    assert inside.requests == []


@pytest.mark.parametrize(
    "location",
    ["ftp://127.0.0.1/", "file:///etc/passwd", "http://u:p@127.0.0.1/", "//2130706433/", "/a b"]
    + ["http://[::ffff:127.0.0.1]/", "gopher://127.0.0.1/", "/\x80"],
)
def test_odd_redirects(location: str) -> None:
    with serving(redirecting(location)) as server, pytest.raises(OutboundRefused):
        client_of(server).get(server.url, 100)
    assert len(server.requests) == 1


def test_a_redirect_from_https_to_http() -> None:
    """The guard judges it as it judges the first URL."""
    guard = Guard(["127.0.0.1"], False, LOOPBACK)
    with pytest.raises(OutboundRefused, match="not https"):
        guard.check(guard.check("https://127.0.0.1/").url.join("http://127.0.0.1/"))


def test_a_redirect_to_nowhere() -> None:
    with (
        serving(answering("302 Found", {})) as server,
        pytest.raises(OutboundFailed, match="the status 302"),
    ):
        client_of(server).get(server.url, 100)


def test_a_location_without_a_redirect_is_not_followed() -> None:
    headers = {"Location": "/elsewhere", "Content-Length": "4"}
    with serving(answering("201 Created", headers, b"here")) as server:
        assert client_of(server).get(server.url, 100)[0] == b"here"
    assert len(server.requests) == 1


# --- bodies ---


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1001"}, {"Content-Length": "9" * 15}])
def test_a_body_that_is_too_long(headers: dict[str, str]) -> None:
    with (
        serving(answering("200 OK", headers, b"x" * 1001)) as server,
        pytest.raises(OutboundFailed, match="more than 1000 bytes"),
    ):
        client_of(server).get(server.url, 1000)


def test_a_body_without_end() -> None:
    def flood(served: Served, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not served.stopped.is_set():
            sent.append(connection.send(b"x" * 65536))

    sent: list[int] = []
    with (
        serving(flood) as server,
        pytest.raises(OutboundFailed, match="more than 100000 bytes"),
    ):
        client_of(server).get(server.url, 100_000)
    assert sum(sent) < 20_000_000  # what the system's buffers took


def test_a_body_may_be_as_long_as_the_limit() -> None:
    with serving(answering("200 OK", {}, b"x" * 1000)) as server:
        assert len(client_of(server).get(server.url, 1000)[0]) == 1000


def test_a_body_longer_than_its_length_is_cut_and_a_shorter_one_fails() -> None:
    with serving(answering("200 OK", {"Content-Length": "2"}, b"abc")) as server:
        assert client_of(server).get(server.url, 100)[0] == b"ab"
    with (
        serving(answering("200 OK", {"Content-Length": "4"}, b"abc")) as server,
        pytest.raises(OutboundFailed, match="broke off"),
    ):
        client_of(server).get(server.url, 100)


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, gzip", "deflate, gzip"])
def test_compressed_bodies_are_not_taken(encoding: str) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with (
        serving(answering("200 OK", {"Content-Encoding": encoding}, bomb)) as server,
        pytest.raises(OutboundFailed, match="compressed"),
    ):
        client_of(server).get(server.url, 100_000)


def test_a_bomb_that_is_not_announced_stays_compressed() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    headers = {"Content-Type": "application/gzip", "Content-Encoding": "identity"}
    with serving(answering("200 OK", headers, bomb)) as server:
        assert client_of(server).get(server.url, len(bomb)) == (bomb, "application/gzip")


@pytest.mark.parametrize("status", ["304 Not Modified", "404 Not Found", "500 Error", "401 Who"])
def test_other_statuses(status: str) -> None:
    with (
        serving(answering(status, {"Content-Length": "0"})) as server,
        pytest.raises(OutboundFailed, match=f"the status {status[:3]}"),
    ):
        client_of(server).get(server.url + "/hush", 100)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http(data: bytes) -> None:
    with (
        serving(sending(data)) as server,
        pytest.raises(OutboundFailed, match="broke off, or does not speak HTTP"),
    ):
        client_of(server).get(server.url, 100)


def test_a_connection_that_is_reset() -> None:
    def reset(_: Served, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(reset) as server, pytest.raises(OutboundFailed, match="broke off"):
        client_of(server).get(server.url, 100)


def test_nobody_listens() -> None:
    with serving(OK) as server:
        pass
    with pytest.raises(OutboundFailed, match="cannot be reached"):
        client_of(server).get(server.url + "/hush", 100)


def test_failures_are_of_the_system_too() -> None:
    """So that a caller may treat them as it does a failed read of a file."""
    assert issubclass(OutboundFailed, OSError)


# --- posts ---


def test_post() -> None:
    with serving(answering("202 Accepted", {}, b"x")) as server:
        headers = {"Content-Type": "application/json", "X-A": "b c", "Host": "else.example"}
        assert client_of(server).post(server.url + "/hook", b'{"a": 1}', headers) == 202
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /hook http/1.1"
    assert [line for line in lines if line.startswith("host:")] == [
        f"host: 127.0.0.1:{server.port}"
    ]
    assert {"content-type: application/json", "x-a: b c", "content-length: 8"} <= set(lines)
    assert body == b'{"a": 1}'


def test_post_follows_no_redirect(inside: Served) -> None:
    with serving(redirecting(inside.url)) as server:
        assert client_of(server, inside).post(server.url, b"x", {}) == 302
    assert inside.requests == []


def test_post_is_guarded(inside: Served) -> None:
    with pytest.raises(OutboundRefused):
        Client(Guard(["a.example"], True, LOOPBACK)).post(inside.url, b"x", {})
    assert inside.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", "b\r\nx-c: d"),
        ("x-a", "b\nx-c: d"),
        ("x-a", "b\r"),
        ("x-a", "b\0"),
        ("x-a", "b\x7f"),
        ("x-a", "é"),
        ("x-a", " b"),
        ("x-a", "b "),
        ("x-a\r\nx-c: d", "b"),
        ("x-a:", "b"),
        ("x a", "b"),
        ("", "b"),
    ],
)
def test_headers_inject_nothing(name: str, value: str) -> None:
    with serving(OK) as server, pytest.raises(OutboundRefused, match="a header holds"):
        client_of(server).post(server.url, b"x", {name: value})
    assert server.requests == []


@pytest.mark.parametrize("end", ["\r\nx: y", " HTTP/1.1\r\nx: y", "\n", "\0", "\x7f", "/é"])
def test_urls_inject_nothing(end: str) -> None:
    with serving(OK) as server:
        for send in (
            lambda client, url: client.get(url, 100),
            lambda client, url: client.post(url, b"x", {}),
        ):
            with pytest.raises(OutboundRefused):
                send(client_of(server), f"{server.url}/{end}")
    assert server.requests == []


def test_messages_hold_no_paths() -> None:
    answers: Sequence[Answer] = [
        answering("404 No", {}),
        answering("200 OK", {}, b"x" * 101),
        answering("200 OK", {"Content-Encoding": "gzip"}, b"x"),
        redirecting("/hush"),
        sending(b""),
    ]
    for answer in answers:
        with serving(answer) as server, pytest.raises(OutboundFailed) as failed:
            client_of(server).get(server.url + "/hush?hush", 100)
        assert "hush" not in str(failed.value)
        assert failed.value.__cause__ is None
