"""Which addresses may be connected to. Python's own judgement is the oracle, where it has one."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entracte.serve.outbound.errors import SetupError
from entracte.serve.outbound.guard import may_connect, read_networks

ALL = ["0.0.0.0/0", "::/0"]

PRIVATE_4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
]
PRIVATE_6 = [
    "::",
    "::1",
    "::7f00:1",  # compatible with IPv4
    "::ffff:0:7f00:1",  # translated
    "64:ff9b:1::1",  # NAT64 of one network
    "100::1",
    "2001::1",  # Teredo
    "2001:0:7f00:1::",
    "2001:2::1",
    "2001:db8::1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2002:808:808::",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%2",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "172.32.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert may_connect(ip_address(text), ())


@pytest.mark.parametrize("text", PRIVATE_4 + PRIVATE_6)
def test_not_public(text: str) -> None:
    assert not may_connect(ip_address(text), ())


@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"])
@pytest.mark.parametrize("text", PRIVATE_4)
def test_an_address_within_another_is_judged(prefix: str, text: str) -> None:
    assert not may_connect(ip_address(prefix + text), ())


def is_special(address: IPv4Address | IPv6Address) -> bool:
    return not address.is_global or address.is_multicast or address.is_reserved


@settings(max_examples=500)
@given(st.ip_addresses(v=4))
def test_nothing_special_of_ipv4_is_public(address: IPv4Address) -> None:
    if is_special(address):
        assert not may_connect(address, ())
        assert not may_connect(IPv6Address(f"::ffff:{address}"), ())
        assert not may_connect(IPv6Address(f"64:ff9b::{address}"), ())


@settings(max_examples=500)
@given(st.ip_addresses(v=6) | st.integers(0, 2**32 - 1).map(IPv6Address))
@example(IPv6Address("2002:a00:1::"))
def test_nothing_special_of_ipv6_is_public(address: IPv6Address) -> None:
    translated = ip_network("64:ff9b::/96")
    if address.ipv4_mapped is None and address not in translated and is_special(address):
        assert not may_connect(address, ())
    if address.sixtofour is not None or address.teredo is not None:
        assert not may_connect(address, ())


def test_an_allowed_network_is_allowed_and_no_other() -> None:
    allowed = read_networks(["127.0.0.0/8", "fd12::/16"])
    assert may_connect(ip_address("127.0.0.1"), allowed)
    assert may_connect(ip_address("::ffff:127.0.0.1"), allowed)
    assert may_connect(ip_address("fd12::1"), allowed)
    assert not may_connect(ip_address("::1"), allowed)
    assert not may_connect(ip_address("10.0.0.1"), allowed)
    assert not may_connect(ip_address("fd13::1"), allowed)


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"]
    + ["fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254"],
)
def test_secrets_of_clouds_are_in_no_allowed_network(text: str) -> None:
    assert not may_connect(ip_address(text), read_networks(ALL))


@pytest.mark.parametrize("text", ["", "a", "127.0.0.1/8", "127.0.0.0/33", "10.0.0.0/8 "])
def test_refuses_odd_networks(text: str) -> None:
    with pytest.raises(SetupError, match="not a network"):
        read_networks([text])
