"""What the guard lets through, and at which address."""

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte.serve.outbound.errors import OutboundRefused, Unresolved
from entracte.serve.outbound.guard import Guard, resolve

from .servers import Names

PUBLIC, PRIVATE = "93.184.215.14", "10.0.0.1"
EVERYTHING = ["0.0.0.0/0", "::/0"]


def guard(addresses: list[str], hosts: tuple[str, ...] = ("a.example",)) -> Guard:
    return Guard(hosts, False, resolver=Names(a_example=[addresses]))


def refusal(of: Guard, url: str) -> str:
    with pytest.raises(OutboundRefused) as refused:
        of.check(url)
    return str(refused.value)


def test_pins_what_it_resolved() -> None:
    target = guard(["2606:4700::1111", PUBLIC, PUBLIC]).check("https://a.example/b?c")
    assert target.addresses == ("2606:4700::1111", PUBLIC)
    assert (target.url.host, target.url.port, target.url.target) == ("a.example", 443, "/b?c")
    assert target.url.authority == "a.example"


@pytest.mark.parametrize("addresses", [[PRIVATE], [PUBLIC, PRIVATE], [PRIVATE, PUBLIC]])
def test_one_private_address_is_enough_to_refuse(addresses: list[str]) -> None:
    message = refusal(guard(addresses), "https://a.example/")
    assert "not public" in message
    assert PRIVATE not in message


def test_a_name_is_resolved_once() -> None:
    names = Names(a_example=[[PUBLIC], [PRIVATE]])
    target = Guard(["a.example"], False, resolver=names).check("https://a.example/")
    assert target.addresses == (PUBLIC,)
    assert names.asked == ["a.example"]


def test_refuses_before_it_resolves() -> None:
    names = Names(b_example=[[PUBLIC]])
    strict = Guard(["a.example"], False, resolver=names)
    assert "not among" in refusal(strict, "https://b.example/")
    assert "not https" in refusal(strict, "http://a.example/")
    assert names.asked == []


def test_nothing_is_allowed_where_no_host_is() -> None:
    assert "no hosts are allowed" in refusal(guard([PUBLIC], ()), "https://a.example/")


def test_http_where_allowed() -> None:
    lax = Guard(["a.example"], True, resolver=Names(a_example=[[PUBLIC]]))
    assert lax.check("http://a.example/").url.port == 80
    assert lax.check("https://a.example/").url.port == 443


@pytest.mark.parametrize("names", [Names(), Names(a_example=[[]])])
def test_a_name_without_addresses(names: Names) -> None:
    with pytest.raises(Unresolved, match=r"a\.example has no address"):
        Guard(["a.example"], False, resolver=names).check("https://a.example/")


def test_literal_addresses_are_judged_and_not_resolved() -> None:
    names = Names()
    literal = Guard([PUBLIC, PRIVATE, "[::1]"], False, resolver=names)
    assert literal.check(f"https://{PUBLIC}/").addresses == (PUBLIC,)
    assert "not public" in refusal(literal, f"https://{PRIVATE}/")
    assert "not public" in refusal(literal, "https://[::1]/")
    assert names.asked == []


def test_messages_hold_no_paths() -> None:
    for addresses in ([PRIVATE], []):
        assert "hush" not in refusal(guard(addresses), "https://a.example/hush?hush")
    assert "hush" not in refusal(guard([PUBLIC]), "https://b.example/hush?hush")


NOT_GLOBAL = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4"),
    "240.0.0.0/4",
]


@given(st.sampled_from(NOT_GLOBAL).flatmap(lambda network: st.ip_addresses(network=network)))
def test_an_address_that_is_not_global_is_refused_in_every_form(address: IPv4Address) -> None:
    high, low = address.packed[:2].hex(), address.packed[2:].hex()
    inner = [
        IPv6Address(f"::ffff:{address}"),
        IPv6Address(f"::ffff:0:{address}"),
        IPv6Address(f"::{address}"),
        IPv6Address(f"64:ff9b::{address}"),
        IPv6Address(f"2002:{high}:{low}::1"),
        IPv6Address(f"2001:0:{high}:{low}::"),
    ]
    for form in map(str, (address, *inner)):
        assert "not public" in refusal(guard([form]), "https://a.example/")
        host = f"[{form}]" if ":" in form else form
        assert "not public" in refusal(Guard([host], False), f"https://{host}/")
        spelt = f"[{IPv6Address(form).exploded.upper()}]" if ":" in form else form
        assert "not public" in refusal(Guard([host], False), f"https://{spelt}/")
    number, parts = int(address), address.packed
    odd = [
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(map(hex, parts)),
        ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        f"{address}.",
        str(address).replace(".", "%2e"),
        str(address).translate({ord("0") + digit: ord("０") + digit for digit in range(10)}),
    ]
    # Even where the address itself may be connected to.
    lax = Guard([str(address)], True, EVERYTHING)
    for form in odd:
        with pytest.raises(OutboundRefused):
            lax.check(f"http://{form}/")


def test_the_system_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **how: int) -> object:
        assert (host, port, how) == ("a.example", 443, {"type": socket.SOCK_STREAM})
        six = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", port, 0, 2))
        return [six, (socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert resolve("a.example", 443) == ["fe80::1%eth0", PUBLIC]
    assert "not public" in refusal(Guard(["a.example"], False), "https://a.example/")
