"""Certificates are checked against the URL's host, though an address is connected to."""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from entracte.serve.outbound.client import Client
from entracte.serve.outbound.errors import OutboundFailed
from entracte.serve.outbound.guard import Guard

from .servers import LOOPBACK, OK, Names, Served, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For a.example alone, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=a.example"]
    command += ["-addext", "subjectAltName=DNS:a.example"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def trust(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[0])


def client_for(server: Served, trust: ssl.SSLContext | None, seconds: float = 5.0) -> Client:
    names = Names(a_example=[["127.0.0.1"]], b_example=[["127.0.0.1"]])
    hosts = [f"{host}:{server.port}" for host in ("a.example", "b.example", "127.0.0.1")]
    return Client(Guard(hosts, False, LOOPBACK, names), seconds, trust)


def test_the_host_that_the_certificate_names(
    context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    with serving(OK, context=context) as server:
        client = client_for(server, trust)
        assert client.get(f"https://a.example:{server.port}/", 100)[0] == b"fine"
        assert client.post(f"https://a.example:{server.port}/", b"x", {}) == 200
    assert server.server_names == ["a.example", "a.example"]
    assert f"host: a.example:{server.port}\r\n".encode() in server.requests[0].lower()


@pytest.mark.parametrize("host", ["b.example", "127.0.0.1"])
def test_another_host(context: ssl.SSLContext, trust: ssl.SSLContext, host: str) -> None:
    with serving(OK, context=context) as server:
        with pytest.raises(OutboundFailed, match="no certificate that we trust"):
            client_for(server, trust).get(f"https://{host}:{server.port}/", 100)
        with pytest.raises(OutboundFailed, match="no certificate that we trust"):
            client_for(server, trust).post(f"https://{host}:{server.port}/", b"x", {})
    assert server.requests == []


def test_an_authority_that_the_system_does_not_know(context: ssl.SSLContext) -> None:
    with (
        serving(OK, context=context) as server,
        pytest.raises(OutboundFailed, match="no certificate that we trust"),
    ):
        client_for(server, None).get(f"https://a.example:{server.port}/", 100)
    assert server.requests == []


def test_a_slow_body_ends_in_time(context: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    def dripped(served: Served, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        served.drip(connection, b"x")

    with (
        serving(dripped, context=context) as server,
        pytest.raises(OutboundFailed, match="took too long"),
    ):
        client_for(server, trust, 0.4).get(f"https://a.example:{server.port}/", 60)
