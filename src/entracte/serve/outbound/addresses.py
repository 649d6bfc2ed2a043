"""Which addresses are anybody's. All others belong to some private or special network."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from .errors import SetupError

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
        "169.254.0.0/16",  # link-local, and what clouds tell their machines
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
_GLOBAL_6 = IPv6Network("2000::/3")  # all that is given out so far
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

# Where clouds tell a machine its secrets. Most are in special networks; allowing such a network
# does not allow these.
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
    """Whether an address is anybody's, or in an allowed network. An IPv4 address within an IPv6
    one is judged as itself.
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
