"""Signatures, checked with the client that receivers use."""

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InvalidWebhookSignatureError, OpenAI

from entracte.serve.outbound.errors import SetupError
from entracte.serve.webhooks.signing import new_secret, sign

CLIENT = OpenAI(api_key="none")
EVENT = {
    "id": "evt_1",
    "object": "event",
    "created_at": 1_790_000_000,
    "type": "video.completed",
    "data": {"id": "video_1"},
}
BODY = json.dumps(EVENT).encode()


def test_unwraps() -> None:
    secret = new_secret()
    headers = sign(secret, "evt_1", int(time.time()), BODY)
    event = CLIENT.webhooks.unwrap(BODY, headers, secret=secret)
    assert (event.id, event.type, event.data.id) == ("evt_1", "video.completed", "video_1")


@given(st.text(), st.from_regex(r"evt_[0-9a-f]{32}", fullmatch=True))
def test_every_body_verifies(text: str, message: str) -> None:
    secret = new_secret()
    headers = sign(secret, message, int(time.time()), text.encode())
    CLIENT.webhooks.verify_signature(text, headers, secret=secret)


@pytest.mark.parametrize("what", ["body", "timestamp", "id", "secret", "signature"])
def test_whatever_is_changed_shows(what: str) -> None:
    secret, now, body = new_secret(), int(time.time()), BODY
    headers = sign(secret, "evt_1", now, body)
    if what == "body":
        body = BODY.replace(b"video_1", b"video_2")
    elif what == "timestamp":
        headers["webhook-timestamp"] = str(now - 1)
    elif what == "id":
        headers["webhook-id"] = "evt_2"
    elif what == "secret":
        secret = new_secret()
    else:
        headers["webhook-signature"] = sign(secret, "evt_1", now, b"")["webhook-signature"]
    with pytest.raises(InvalidWebhookSignatureError):
        CLIENT.webhooks.verify_signature(body, headers, secret=secret)


def test_an_old_message_does_not_verify() -> None:
    secret = new_secret()
    headers = sign(secret, "evt_1", int(time.time()) - 3600, BODY)
    with pytest.raises(InvalidWebhookSignatureError, match="too old"):
        CLIENT.webhooks.verify_signature(BODY, headers, secret=secret)


def test_a_signature_computed_elsewhere() -> None:
    """With `openssl dgst -sha256 -mac HMAC -macopt hexkey:…` over `msg_1.1700000000.{"a": 1}`."""
    secret = "whsec_" + base64.b64encode(bytes(range(24))).decode()
    assert sign(secret, "msg_1", 1_700_000_000, b'{"a": 1}') == {
        "webhook-id": "msg_1",
        "webhook-timestamp": "1700000000",
        "webhook-signature": "v1,VOcxVsg/8VJMs0c48C0nzawvIY8VkzWdmlreNqX1Gyw=",
    }


def test_secrets_are_new_and_long() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


@pytest.mark.parametrize("secret", ["", "whsec_", "hush", "whsec_hush!", "whsec_aGk", "aGk="])
def test_what_is_no_secret(secret: str) -> None:
    with pytest.raises(SetupError, match="damaged") as error:
        sign(secret, "evt_1", 0, b"")
    assert "hush" not in str(error.value)
