"""Which URLs the service may request, and at which addresses.

A name is resolved once, and the connection goes to the addresses that were checked, so DNS
rebinding (other addresses a moment later) changes nothing.
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .errors import NotHttps, NotPublic, OutboundRefused, SetupError, Unresolved
from .url import Url, read_allowed_hosts, read_url

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's special-purpose registries, without the networks in them that are global. They are written
# out because Python's `is_global` differs by version, and takes multicast and 6to4 for global.
_SPECIAL_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # of providers, behind their address translation
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")  # all that is allocated so far
_SPECIAL_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, among them Teredo, which holds IPv4 addresses
        "2001:db8::/32",
        "2002::/16",  # 6to4, which holds IPv4 addresses
        "3fff::/20",
    )
)
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: the IPv4 address is in the last four bytes

# The metadata services of clouds, which hand out secrets. Most are in special networks; allowing
# such a network does not allow these.
_METADATA = frozenset(
    (
        IPv4Address("100.100.100.200"),
        IPv4Address("168.63.129.16"),
        IPv4Address("169.254.169.254"),
        IPv4Address("169.254.170.2"),
        IPv4Address("169.254.170.23"),
        IPv4Address("192.0.0.192"),
        IPv6Address("fd00:ec2::23"),
        IPv6Address("fd00:ec2::254"),
        IPv6Address("fd20:ce::254"),
    )
)

Lookup = Callable[[str, int], Sequence[str]]
"""The addresses of a name, for a port, best first. Raises OSError where there are none."""


def resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver, which has its own timeout (resolv.conf)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked for, at one of these addresses and no other, the best first."""

    url: Url
    addresses: tuple[str, ...]


class Guard:
    """Checks URLs; knows nothing of connections.

    allowed_hosts: as `read_allowed_hosts` takes them; with none, every URL is refused.
    allow_networks: networks that may be connected to although they are not public.
    Raises SetupError for hosts or networks that cannot be read.
    """

    def __init__(
        self,
        allowed_hosts: Sequence[str],
        allow_http: bool,
        allow_networks: Sequence[str] = (),
        resolver: Lookup = resolve,
    ) -> None:
        self._hosts = read_allowed_hosts(allowed_hosts)
        self._allow_http = allow_http
        self._networks = read_networks(allow_networks)
        self._resolver = resolver

    def check(self, url: str | Url) -> Target:
        """Check a URL and resolve its host. Raises OutboundRefused, of which Unresolved is one."""
        if not self._hosts:
            raise OutboundRefused("no hosts are allowed here, so URLs cannot be used")
        if isinstance(url, str):
            url = read_url(url)
        if url.scheme != "https" and not self._allow_http:
            raise NotHttps("the URL is not https")
        if not any(host.allows(url) for host in self._hosts):
            raise OutboundRefused(f"{url.authority} is not among the allowed hosts")
        return Target(url, self._checked(url))

    def _checked(self, url: Url) -> tuple[str, ...]:
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


def read_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read networks such as 10.1.0.0/16. Raises SetupError."""
    networks = []
    for text in texts:
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            raise SetupError(f"{text!r} is not a network: {error}") from None
    return tuple(networks)


def may_connect(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether an address is public or in an allowed network. An IPv4 address embedded in an IPv6
    address is checked as IPv4.
    """
    inner = _unwrap(address)
    if inner in _METADATA:
        return False
    return _is_public(inner) or any(inner in network for network in allowed)


def _unwrap(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED:
        return IPv4Address(address.packed[-4:])
    # Without its scope, as the sets above have them.
    return address.ipv4_mapped or IPv6Address(address.packed)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)
