"""What the service may request of other machines: images and webhooks. Off until allowed."""

import httpcore2

from entracte.config.serve import ServeSettings
from entracte.serve.errors import RequestRefused

from .client import Client
from .errors import (
    NotHttps,
    NotPublic,
    OutboundFailed,
    OutboundRefused,
    SetupError,
    Unresolved,
)
from .guard import Guard
from .url import read_url

IMAGE = "input_reference"
WEBHOOK = "webhook_url"


def host_of(url: str) -> str:
    """The host of a URL, with its port unless that is the scheme's; "" if it is not a URL."""
    try:
        return read_url(url).authority
    except OutboundRefused:
        return ""


class Outbound:
    """One client for images and one for webhooks; their hosts are allowed separately.

    webhooks: the client that delivers events.
    """

    def __init__(self, settings: ServeSettings) -> None:
        networks, http = settings.allow_network, settings.allow_http
        certificates = httpcore2.default_ssl_context()  # once: reading them takes long
        self._images = Client(Guard(settings.image_host, http, networks), ssl_context=certificates)
        # The operator's own URLs are always allowed.
        hosts = [_authority_of(url) for url in settings.webhook_url]
        self.webhooks = Client(
            Guard([*settings.webhook_host, *hosts], http, networks), ssl_context=certificates
        )
        for url in settings.webhook_url:
            _require_sendable(self.webhooks.guard, url)

    def require_webhook(self, url: str | None) -> None:
        """Raise RequestRefused for a URL that may not be called."""
        if url is None:
            return
        try:
            self.webhooks.guard.check(url)
        except OutboundRefused as error:
            raise RequestRefused(f"{WEBHOOK}: {error}", WEBHOOK, "url_not_allowed") from None

    def fetch_image(self, url: str, max_bytes: int, seconds: float) -> bytes:
        """Download an image. Raises RequestRefused if the URL is not allowed or fails."""
        try:
            data, _ = self._images.get(url, max_bytes, seconds)
        except OutboundRefused as error:
            raise RequestRefused(f"{IMAGE}: {error}", IMAGE, "url_not_allowed") from None
        except OutboundFailed as error:
            raise RequestRefused(f"{IMAGE}: {error}", IMAGE, "url_failed") from None
        return data


def _authority_of(url: str) -> str:
    try:
        return read_url(url).authority
    except OutboundRefused as error:
        raise SetupError(f"`webhook_url`: {error}", settings=("webhook_url",)) from None


def _require_sendable(guard: Guard, url: str) -> None:
    """Raise SetupError for a URL of the operator's that could never be called."""
    try:
        guard.check(url)
    except Unresolved:
        pass  # it may have an address later
    except NotHttps:
        raise SetupError(
            f"`webhook_url`: {host_of(url)} needs https, or `allow_http`",
            settings=("webhook_url", "allow_http"),
        ) from None
    except NotPublic as error:
        raise SetupError(
            f"`webhook_url`: {error}; `allow_network` allows it",
            settings=("webhook_url", "allow_network"),
        ) from None
