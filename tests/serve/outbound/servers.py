"""Servers on this machine that answer as badly as a test wants, and clients that reach them."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import httpcore2

from entracte.serve.outbound.client import Client
from entracte.serve.outbound.guard import Guard

LOOPBACK = ["127.0.0.0/8", "::1/128"]


class Served:
    """url: of its root. requests: what arrived, whole."""

    def __init__(self, port: int, address: str, scheme: str) -> None:
        self.port = port
        self.host = f"[{address}]" if ":" in address else address
        self.url = f"{scheme}://{self.host}:{port}"
        self.requests: list[bytes] = []
        self.server_names: list[str | None] = []
        self.stopped = threading.Event()

    @property
    def paths(self) -> list[str]:
        return [request.split(b" ")[1].decode() for request in self.requests]

    def drip(self, connection: socket.socket, data: bytes, pause: float = 0.02) -> None:
        """Send a byte at a time until the other side has enough."""
        while not self.stopped.is_set():
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(pause)


Answer = Callable[[Served, socket.socket], None]


def answering(status: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    """A whole answer, with no Content-Length but what `headers` say, and then the end."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return sending(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body)


def sending(data: bytes) -> Answer:
    return lambda _, connection: connection.sendall(data)


OK = answering("200 OK", {"Content-Type": "image/png"}, b"fine")


def redirecting(location: str) -> Answer:
    return answering("302 Found", {"Location": location, "Content-Length": "0"})


@contextmanager
def serving(
    answer: Answer | dict[str, Answer],
    address: str = "127.0.0.1",
    port: int = 0,
    context: ssl.SSLContext | None = None,
) -> Iterator[Served]:
    """A server that answers every request alike, or each path as told."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=16)
    served = Served(listener.getsockname()[1], address, "https" if context else "http")
    if context is not None:
        context.sni_callback = lambda _, name, __: served.server_names.append(name)
    thread = threading.Thread(target=_accept, args=(served, listener, answer, context), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        listener.close()


def _accept(
    served: Served,
    listener: socket.socket,
    answer: Answer | dict[str, Answer],
    context: ssl.SSLContext | None,
) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        arguments = (served, connection, answer, context)
        threading.Thread(target=_serve, args=arguments, daemon=True).start()


def _serve(
    served: Served,
    connection: socket.socket,
    answer: Answer | dict[str, Answer],
    context: ssl.SSLContext | None,
) -> None:
    connection.settimeout(10)
    try:
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        request = _read_request(connection)
        served.requests.append(request)
        if isinstance(answer, dict):
            answer = answer[served.paths[-1]]
        answer(served, connection)
    except OSError:
        pass  # the client left
    finally:
        connection.close()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += _receive(connection)
    return head + b"\r\n\r\n" + body


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError
    return data


class Names:
    """A resolver of names that tests make up. Each answers with the next of its answers."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {
            name.replace("_", "."): list(addresses) for name, addresses in answers.items()
        }
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None:
            raise socket.gaierror("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


def client_of(*servers: Served, seconds: float = 5.0) -> Client:
    """A client that may reach these servers by their addresses."""
    hosts = [f"{server.host}:{server.port}" for server in servers]
    return Client(Guard(hosts, True, LOOPBACK), seconds, system_trust())


@cache
def system_trust() -> ssl.SSLContext:
    """Read once, for speed."""
    return httpcore2.default_ssl_context()
