"""Attempts to deliver, and when there is another."""

import socket
from dataclasses import dataclass
from random import Random

import pytest
from openai import OpenAI

from entracte.serve.outbound.client import Client
from entracte.serve.outbound.errors import SetupError
from entracte.serve.outbound.guard import Guard
from entracte.serve.webhooks.deliveries import (
    JITTER,
    PAUSES,
    Outcome,
    deliver,
    next_attempt,
    outcome_of,
)
from entracte.serve.webhooks.signing import new_secret
from tests.serve.outbound.servers import (
    LOOPBACK,
    OK,
    Names,
    Served,
    answering,
    client_of,
    redirecting,
    sending,
    serving,
)
from tests.serve.running import PATIENCE


@dataclass(frozen=True)
class Letter:
    id: str
    url: str
    body: bytes = b'{"type": "video.completed"}'


def test_pauses_grow_and_end() -> None:
    random = Random(0)
    for attempts, pause in enumerate(PAUSES, start=1):
        chosen = {next_attempt(attempts, random) for _ in range(100)}
        assert len(chosen) > 50
        assert pause * (1 - JITTER) <= min(chosen) < pause < max(chosen) <= pause * (1 + JITTER)
    assert list(PAUSES) == [5, 30, 120, 600, 3600, 21600]
    assert next_attempt(len(PAUSES) + 1, random) is None
    assert next_attempt(1, Random(7)) == next_attempt(1, Random(7))


@pytest.mark.parametrize(
    ("outcome", "statuses"),
    [
        ("delivered", [200, 201, 202, 204, 299]),
        ("gone", [410]),
        ("again", [100, 199, 300, 301, 302, 308, 400, 401, 404, 409, 429, 500, 503, 599]),
    ],
)
def test_outcomes(outcome: Outcome, statuses: list[int]) -> None:
    assert {outcome_of(status) for status in statuses} == {outcome}


def test_a_delivery_verifies() -> None:
    secret = new_secret()
    with serving(OK) as server:
        message = Letter("evt_1", server.url + "/hook")
        assert deliver(client_of(server), secret, message) == "delivered"
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in lines}
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "evt_1"
    OpenAI(api_key="none").webhooks.verify_signature(body, headers, secret=secret)


def test_each_attempt_is_signed_anew() -> None:
    clock = iter((1_700_000_000.9, 1_700_000_030.0))
    secret = new_secret()
    with serving(OK) as server:
        for _ in range(2):
            message = Letter("evt_1", server.url)
            deliver(client_of(server), secret, message, lambda: next(clock))
    first, second = (request.decode().lower() for request in server.requests)
    assert "webhook-timestamp: 1700000000\r\n" in first
    assert "webhook-timestamp: 1700000030\r\n" in second


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("204 No Content", "delivered"), ("410 Gone", "gone"), ("500 Oops", "again")],
)
def test_statuses(status: str, outcome: str) -> None:
    with serving(answering(status, {})) as server:
        assert deliver(client_of(server), new_secret(), Letter("evt_1", server.url)) == outcome


def test_failures_are_worth_another_attempt() -> None:
    secret = new_secret()
    with serving(sending(b"")) as server:
        message = Letter("evt_1", server.url)
        assert deliver(client_of(server), secret, message) == "again"
    assert deliver(client_of(server), secret, message) == "again"  # nobody listens any more
    unresolved = Client(Guard(["a.example"], False, LOOPBACK, Names()))
    assert deliver(unresolved, secret, Letter("evt_1", "https://a.example/")) == "again"


def test_a_slow_receiver_is_tried_again() -> None:
    def silence(served: Served, connection: socket.socket) -> None:
        if not served.stopped.wait(PATIENCE):
            OK(served, connection)  # waited for all that time, it would be a delivery

    with serving(silence) as server:
        client = client_of(server, seconds=0.2)
        assert deliver(client, new_secret(), Letter("evt_1", server.url)) == "again"


def test_what_is_refused_is_not_tried_again() -> None:
    secret = new_secret()
    with serving(OK) as server:
        other = Letter("evt_1", server.url.replace("127.0.0.1", "127.0.0.2"))
        assert deliver(client_of(server), secret, other) == "refused"
        assert deliver(client_of(server), secret, Letter("evt\r\nx: y", server.url)) == "refused"
        private = Client(Guard([f"127.0.0.1:{server.port}"], True))
        assert deliver(private, secret, Letter("evt_1", server.url)) == "refused"
    assert server.requests == []


def test_a_redirect_is_no_delivery() -> None:
    with serving({"/a": redirecting("/b"), "/b": OK}) as server:
        message = Letter("evt_1", server.url + "/a")
        assert deliver(client_of(server), new_secret(), message) == "again"
    assert server.paths == ["/a"]


def test_a_damaged_secret_sends_nothing() -> None:
    with serving(OK) as server, pytest.raises(SetupError):
        deliver(client_of(server), "whsec_", Letter("evt_1", server.url))
    assert server.requests == []
