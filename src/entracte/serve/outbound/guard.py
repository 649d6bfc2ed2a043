"""The guard: which URLs the service asks for, and at which addresses.

A name is resolved once, and the connection goes to the addresses that were judged: a name that has
other addresses a moment later (DNS rebinding) changes nothing.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from .addresses import may_connect, read_networks
from .errors import NotHttps, NotPublic, OutboundRefused, Unresolved
from .hosts import read_allowed_hosts
from .urls import Url, read_url

__all__ = ["Guard", "OutboundRefused", "Target", "Unresolved", "resolve"]

Resolver = Callable[[str, int], Sequence[str]]
"""The addresses of a name, for a port, best first. Raises OSError where there are none."""


def resolve(host: str, port: int) -> list[str]:
    """Ask the system, which has its own limit of time (resolv.conf's)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked for, at one of these addresses and no other, the best first."""

    url: Url
    addresses: tuple[str, ...]


class Guard:
    """Judges URLs; knows nothing of connections.

    allowed_hosts: as `read_allowed_hosts` takes them; with none, every URL is refused.
    allow_networks: whose addresses may be connected to though they are not public.
    Raises SetupError for hosts or networks that cannot be read.
    """

    def __init__(
        self,
        allowed_hosts: Sequence[str],
        allow_http: bool,
        allow_networks: Sequence[str] = (),
        resolver: Resolver = resolve,
    ) -> None:
        self._hosts = read_allowed_hosts(allowed_hosts)
        self._allow_http = allow_http
        self._networks = read_networks(allow_networks)
        self._resolver = resolver

    def check(self, url: str | Url) -> Target:
        """Judge a URL and resolve its host. Raises OutboundRefused; Unresolved is one of those."""
        if not self._hosts:
            raise OutboundRefused("no hosts are allowed here, so URLs cannot be used")
        if isinstance(url, str):
            url = read_url(url)
        if url.scheme != "https" and not self._allow_http:
            raise NotHttps("the URL is not https")
        if not any(host.allows(url) for host in self._hosts):
            raise OutboundRefused(f"{url.authority} is not among the allowed hosts")
        return Target(url, self._judged(url))

    def _judged(self, url: Url) -> tuple[str, ...]:
        try:
            found = [ip_address(url.host)]
        except ValueError:
            found = [ip_address(text) for text in self._resolved(url)]
        # One address of many that leads inside is an attack or a mistake; neither is worth a try.
        if not all(may_connect(address, self._networks) for address in found):
            raise NotPublic(f"{url.authority} is in a network that is not public")
        return tuple(dict.fromkeys(map(str, found)))

    def _resolved(self, url: Url) -> Sequence[str]:
        try:
            found = self._resolver(url.host, url.port)
        except OSError:
            found = ()
        if not found:
            raise Unresolved(f"{url.host} has no address at the moment")
        return found
