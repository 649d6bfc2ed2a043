"""Webhooks reach those who listen, whoever else does not."""

import secrets
import socket
from pathlib import Path

import httpx2
import pytest

from entracte.serve.data_folder import DataFolder
from entracte.serve.jobs.outbox import OPERATOR, Delivery
from entracte.serve.outbound.errors import SetupError
from entracte.serve.outbound.policy import Outbound
from entracte.serve.webhooks.dispatcher import (
    OF_A_HOST,
    OF_A_KEY,
    OF_KEYS,
    OF_OPERATOR,
    InFlight,
    webhook_secret,
)
from tests.serve.running import Hooks, local, settings_for, small, wait_for


def delivery(url: str, owner: str) -> Delivery:
    return Delivery(f"evt_{secrets.token_hex(8)}", url, owner, b"{}", 0)


@pytest.mark.slow
def test_hosts_that_never_answer_keep_nobody_waiting(tmp_path: Path) -> None:
    """One key names a dozen addresses of one; the operator and another key are told at once."""
    hooks = Hooks()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        deaf = f"127.0.0.1:{silent.getsockname()[1]}"
        listening = hooks.url.removeprefix("http://").removesuffix("/hook")
        settings = hooks.settings | {
            "webhook_url": (f"http://{deaf}/operator", f"{hooks.url}/operator"),
            "webhook_host": (deaf, listening),
        }
        with local(tmp_path / "data", **settings) as running:
            for number in range(12):
                running.create(webhook_url=f"http://{deaf}/{number}")
            _, secret = running.service.keys.add("another")
            headers = {"Authorization": f"Bearer {secret}"}
            asked = small(webhook_url=hooks.url)
            answer = httpx2.post(f"{running.url}/v1/videos", json=asked, headers=headers)
            video = answer.json()["id"]
            wait_for(lambda: len(hooks.told().get(video, ())) == 2)
    hooks.close()


def test_a_url_is_told_of_one_message_after_the_other() -> None:
    in_flight, message = InFlight(), delivery("https://a.example/x", "ann")
    assert in_flight.begin(message)
    assert not in_flight.begin(delivery(message.url, "bob"))
    in_flight.end(message)
    assert in_flight.begin(message)


def test_who_is_told_at_once_is_bounded_by_host_by_key_and_in_all() -> None:
    def begun(*messages: Delivery) -> int:
        return sum(in_flight.begin(each) for each in messages)

    def of(owner: str, count: int = 100) -> list[Delivery]:
        return [delivery(f"https://{owner}-{n}.example/x", owner) for n in range(count)]

    in_flight = InFlight()
    one_host = [delivery(f"https://one.example/{n}", f"owner {n}") for n in range(100)]
    assert begun(*one_host) == OF_A_HOST
    assert begun(delivery("https://one.example:8443/", "ann")) == 1  # another host, for us
    in_flight = InFlight()
    assert begun(*of("ann")) == OF_A_KEY
    assert begun(*of("bob")) == OF_A_KEY
    others = [message for n in range(10) for message in of(f"owner{n}")]
    assert begun(*others) == OF_KEYS - 2 * OF_A_KEY
    assert begun(*of(OPERATOR)) == OF_OPERATOR


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("http://hooks.example.com/x", {}, "hooks.example.com needs https, or `allow_http`"),
        ("https://127.0.0.1:9/x", {}, "127.0.0.1:9 is in a network that is not public; `allow_n"),
        ("http://10.1.2.3/secret", {"allow_http": True}, "10.1.2.3 is in a network that is not"),
        ("hooks.example.com/secret", {}, "`webhook_url`: that is not a URL"),
        ("ftp://hooks.example.com/secret", {}, "`webhook_url`: the URL is neither"),
        ("https://user:secret@hooks.example.com/", {}, "`webhook_url`: the URL holds a user name"),
    ],
)
def test_a_url_that_would_never_be_told_is_refused_at_the_start(
    tmp_path: Path, url: str, more: dict[str, object], words: str
) -> None:
    with pytest.raises(SetupError) as caught:
        Outbound(settings_for(tmp_path, webhook_url=(url,), **more))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_url_that_may_be_told_later_is_taken(tmp_path: Path) -> None:
    settings = {"allow_http": True, "allow_network": ("127.0.0.0/8",)}
    urls = ("https://nowhere.invalid/x", "http://127.0.0.1:9/x")
    Outbound(settings_for(tmp_path, webhook_url=urls, **settings))


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"whsec_", b"whsec_!!", b"\xff\xfe\x00", b"abc", "whsec_é".encode()]
)
def test_a_damaged_secret_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    folder = DataFolder(tmp_path)
    folder.webhook_secret.write_bytes(content)
    with pytest.raises(SetupError, match="webhook secret"):
        webhook_secret(folder)


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.webhook_secret.mkdir()
    with pytest.raises(SetupError, match="cannot read the webhook secret .*: Is a directory"):
        webhook_secret(folder)
    folder.webhook_secret.rmdir()
    secret = webhook_secret(folder)
    assert webhook_secret(folder) == secret
