"""A request ends in time, however slowly the other side goes."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from entracte.serve.outbound.client import PIECE
from entracte.serve.outbound.errors import OutboundFailed

from ..running import PATIENCE
from .servers import Answer, Served, client_of, redirecting, serving

SECONDS = 0.3


@contextmanager
def ends_in_time() -> Iterator[None]:
    """Not before its time; and had it waited for the other side, it would fail otherwise."""
    began = time.monotonic()
    with pytest.raises(OutboundFailed, match="took too long"):
        yield
    assert time.monotonic() - began > SECONDS - 0.05


def silence(served: Served, _: socket.socket) -> None:
    served.stopped.wait(PATIENCE)


def dripped_head(served: Served, connection: socket.socket) -> None:
    served.drip(connection, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100)


def dripped_body(served: Served, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    served.drip(connection, b"x")


def dripped_chunks(served: Served, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    served.drip(connection, b"1\r\nx\r\n")


def promises(served: Served, connection: socket.socket) -> None:
    while not served.stopped.wait(0.02):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("answer", [silence, dripped_head, dripped_body, dripped_chunks, promises])
def test_slow_answers(answer: Answer) -> None:
    with serving(answer) as server, ends_in_time():
        client_of(server, seconds=SECONDS).get(server.url, 10_000)


@pytest.mark.parametrize("answer", [silence, dripped_head, promises])
def test_slow_answers_to_posts(answer: Answer) -> None:
    with serving(answer) as server, ends_in_time():
        client_of(server, seconds=SECONDS).post(server.url, b"x", {})


def test_all_redirects_share_the_time() -> None:
    def slowly(served: Served, connection: socket.socket) -> None:
        time.sleep(SECONDS * 0.4)  # so that three of them are too many
        redirecting("/")(served, connection)

    with serving(slowly) as server, ends_in_time():
        client_of(server, seconds=SECONDS).get(server.url, 100)


def test_no_time_at_all() -> None:
    with serving(silence) as server, pytest.raises(OutboundFailed, match="took too long"):
        client_of(server, seconds=0).get(server.url, 100)


def test_a_handshake_that_never_comes() -> None:
    with serving(silence) as server, ends_in_time():
        url = server.url.replace("http:", "https:")
        client_of(server, seconds=SECONDS).get(url, 100)


def test_a_receiver_that_reads_slowly() -> None:
    """Each wait for room is short; all of them together are not."""
    listener = socket.create_server(("127.0.0.1", 0))
    served = Served(listener.getsockname()[1], "127.0.0.1", "http")
    with listener, ends_in_time(), _reading_slowly(listener):
        client_of(served, seconds=SECONDS).post(served.url, bytes(100_000_000), {})


@contextmanager
def _reading_slowly(listener: socket.socket) -> Iterator[None]:
    stopped = threading.Event()

    def read() -> None:
        connection, _ = listener.accept()
        with connection:
            while not stopped.wait(0.005) and connection.recv(16 * PIECE):
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(5)
