"""Signatures of webhooks in the Standard Webhooks format (https://www.standardwebhooks.com)."""

import base64
import binascii
import hmac
import secrets

from entracte.serve.outbound.errors import SetupError

PREFIX = "whsec_"
SECRET_BYTES = 32  # the format wants 24 to 64


def new_secret() -> str:
    """A new secret, in the form that receivers need."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that prove a message's origin, content and time.

    A repeated message keeps its id and gets a new timestamp. Raises SetupError for an invalid
    secret.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(_key(secret), signed, "sha256")).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or not key:
        raise SetupError(f"the webhook secret is damaged: it is {PREFIX} and then base64")
    return key
