"""URLs and allowed hosts, parsed strictly: what two parsers might read differently is refused."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from .errors import OutboundRefused, SetupError

PORTS = {"http": 80, "https": 443}
MAX_LENGTH = 8192

# RFC 3986's, without the backslash that some take for a slash.
_CHARACTERS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_URL = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>[1-9][0-9]{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LIKE_A_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in canonical form. host: in lower case, an IPv6 address without its brackets.

    target: the path and the query, as sent.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The host as the Host header has it, with the port where it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def join(self, location: str) -> "Url":
        """Where a redirect from here leads. Raises OutboundRefused."""
        try:
            joined = urljoin(f"{self.scheme}://{self.authority}{self.target}", location)
        except ValueError:
            raise OutboundRefused("the URL of a redirect cannot be read") from None
        return read_url(joined)


def read_url(text: str) -> Url:
    """Read an http or https URL. Its fragment is dropped. Raises OutboundRefused."""
    if len(text) > MAX_LENGTH:
        raise OutboundRefused(f"the URL is longer than {MAX_LENGTH} characters")
    if not _CHARACTERS.fullmatch(text):
        raise OutboundRefused(
            "the URL holds characters that URLs may not; percent-encode them, "
            "and write a host of other letters as xn--…"
        )
    parts = _URL.fullmatch(text)
    if parts is None:
        raise OutboundRefused("that is not a URL; one begins with https://")
    scheme = parts["scheme"].lower()
    if scheme not in PORTS:
        raise OutboundRefused("the URL is neither https nor http")
    if "@" in parts["authority"]:
        raise OutboundRefused("the URL holds a user name or a password; leave them out")
    authority = read_authority(parts["authority"])
    if authority is None:
        raise OutboundRefused("the URL's host or port is not written the usual way")
    host, port = authority
    target = parts["target"]
    if not target.startswith("/"):
        target = "/" + target
    return Url(scheme, host, port or PORTS[scheme], target)


def read_authority(text: str) -> tuple[str, int | None] | None:
    """Read `host`, `host:port` or `[address]:port`; None for what is not written the usual way."""
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        return None
    host = _read_host(parts["host"].lower())
    port = int(parts["port"]) if parts["port"] else None
    if host is None or (port or 0) > 65535:
        return None
    return host, port


def _read_host(text: str) -> str | None:
    if text.startswith("["):
        return _read_ipv6(text[1:-1])
    labels = text.split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    if not _LIKE_A_NUMBER.fullmatch(labels[-1]):
        return text
    # Resolvers read 127.1, 0x7f.0.0.1, 017700000001 and 2130706433 as addresses; we read one form.
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return None


def _read_ipv6(text: str) -> str | None:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return None if address.scope_id else str(address)


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host that an operator allows.

    below: it stands for the subdomains of the host, not for the host itself.
    port: None is the default port of the URL's scheme.
    """

    host: str
    port: int | None
    below: bool

    def allows(self, url: Url) -> bool:
        if url.port != (self.port or PORTS[url.scheme]):
            return False
        return url.host.endswith(f".{self.host}") if self.below else url.host == self.host


def read_allowed_hosts(entries: Sequence[str]) -> tuple[AllowedHost, ...]:
    """Read `example.com`, `example.com:8443`, `*.example.com`, `192.0.2.7` and `[2001:db8::7]`.

    Raises SetupError.
    """
    return tuple(_read_allowed(entry) for entry in entries)


def _read_allowed(entry: str) -> AllowedHost:
    below = entry.startswith("*.")
    authority = read_authority(entry.removeprefix("*."))
    if authority is None:
        raise SetupError(
            f"{entry!r} is not a host; write example.com, example.com:8443, *.example.com, "
            "192.0.2.7 or [2001:db8::7]"
        )
    host, port = authority
    if below and (":" in host or host.rpartition(".")[2].isdigit()):
        raise SetupError(f"{entry!r}: there are no hosts below an address; name addresses in full")
    return AllowedHost(host, port, below)
