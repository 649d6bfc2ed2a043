"""URLs are read in one way or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte.serve.outbound.errors import OutboundRefused, SetupError
from entracte.serve.outbound.url import Url, read_allowed_hosts, read_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.example", Url("https", "a.example", 443, "/")),
        ("HTTPS://A.Example:8443/B?c=%20d#e", Url("https", "a.example", 8443, "/B?c=%20d")),
        ("http://a.example?x", Url("http", "a.example", 80, "/?x")),
        ("https://xn--bcher-kva.example/", Url("https", "xn--bcher-kva.example", 443, "/")),
        ("http://my_service:9000/", Url("http", "my_service", 9000, "/")),
        ("https://192.0.2.7/", Url("https", "192.0.2.7", 443, "/")),
        ("https://[2001:DB8:0::7]:1/", Url("https", "2001:db8::7", 1, "/")),
        ("https://a.example/@b", Url("https", "a.example", 443, "/@b")),
    ],
)
def test_reads(text: str, url: Url) -> None:
    assert read_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example",
        "//a.example/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:/a.example/",
        "https:///a.example",
        "https://",
        "https://user@a.example/",
        "https://user:secret@a.example/",
        "https://a.example@b.example/",
        "https://a.example\\@b.example/",
        "https://a.example\\b",
        "https://a.example /",
        " https://a.example/",
        "https://a.example/\r\nX-Header: 1",
        "https://a.example/\n",
        "https://a.example/\tb",
        "https://a.example/\0",
        "https://a.exa\nmple/",
        "https://a.example/b c",
        "https://a.example/é",
        "https://bücher.example/",
        "https://ａ.example/",
        "https://１２７.0.0.1/",
        "https://a。example/",
        "https://ⓔxample.com/",
        "https://%61.example/",
        "https://a.example%00.b.example/",
        "https://a.example./",
        "https://a..example/",
        "https://.a.example/",
        "https://-a.example/",
        "https://a-.example/",
        "https://a.example:/",
        "https://a.example:0/",
        "https://a.example:080/",
        "https://a.example:65536/",
        "https://a.example:+80/",
        "https://a.example:80:80/",
        "https://a,b/",
        "https://*.example/",
        f"https://{'a' * 64}.example/",
        f"https://{'a.' * 127}example/",
        "https://a.example/" + "a" * 10_000,
        "https://[::1/",
        "https://::1/",
        "https://[::1]]/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[127.0.0.1]/",
        "https://[v1.a]/",
        "https://[]/",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(OutboundRefused):
        read_url(text)


@given(st.integers(0, 2**32 - 1), st.data())
def test_an_address_in_an_odd_form_is_no_host(number: int, data: st.DataObject) -> None:
    """As inet_aton reads them: fewer parts, and each decimal, octal or hexadecimal."""
    count = data.draw(st.integers(1, 4), "parts")
    heads = [number >> (24 - 8 * place) & 0xFF for place in range(count - 1)]
    parts = [*heads, number & (1 << (32 - 8 * (count - 1))) - 1]
    forms = st.sampled_from(["{}", "0{:o}", "0x{:x}", "0X{:X}", "00{:o}"])
    text = ".".join(data.draw(forms).format(part) for part in parts)
    plain = ".".join(str(byte) for byte in number.to_bytes(4, "big"))
    if text == plain:
        assert read_url(f"http://{text}/").host == plain
    else:
        with pytest.raises(OutboundRefused):
            read_url(f"http://{text}/")


@pytest.mark.parametrize("text", ["https://a@a.example/", "https://a:b@a.example@b.example/"])
def test_says_what_is_wrong_with_a_password(text: str) -> None:
    with pytest.raises(OutboundRefused, match="a user name or a password"):
        read_url(text)


@pytest.mark.parametrize("text", ["https://u:hush@a.example/hush?hush", "https://a.example:x/hush"])
def test_messages_hold_nothing_of_the_url_but_its_host(text: str) -> None:
    with pytest.raises(OutboundRefused) as refused:
        read_url(text)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/c", Url("https", "a.example", 8443, "/c")),
        ("c", Url("https", "a.example", 8443, "/b/c")),
        ("?c", Url("https", "a.example", 8443, "/b/a?c")),
        ("//b.example/c", Url("https", "b.example", 443, "/c")),
        ("http://b.example", Url("http", "b.example", 80, "/")),
    ],
)
def test_joins_redirects(location: str, url: Url) -> None:
    assert read_url("https://a.example:8443/b/a?q").join(location) == url


@pytest.mark.parametrize(
    "location", ["/a b", "http://[::1", "//u@b.example/", "/\r\nx: y", "\\\\b"]
)
def test_refuses_odd_redirects(location: str) -> None:
    with pytest.raises(OutboundRefused):
        read_url("https://a.example/").join(location)


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        (
            "A.example",
            ["https://a.example/", "http://a.example/", "https://a.example:443/"],
            ["https://b.a.example/", "https://aa.example/", "https://a.example:80/"],
        ),
        (
            "a.example:8443",
            ["https://a.example:8443/", "http://a.example:8443/"],
            ["https://a.example/"],
        ),
        (
            "*.a.example",
            ["https://b.a.example/", "https://c.b.a.example/"],
            ["https://a.example/", "https://ba.example/", "https://b.a.example:8443/"],
        ),
        ("*.a.example:81", ["http://b.a.example:81/"], ["http://b.a.example/"]),
        ("[2001:DB8::7]", ["https://[2001:db8:0::7]/"], ["https://[2001:db8::8]/"]),
        ("[::1]:81", ["http://[::1]:81/"], ["http://[::1]/"]),
        ("192.0.2.7", ["https://192.0.2.7/"], ["https://192.0.2.70/"]),
    ],
)
def test_allowed_hosts(entry: str, allowed: list[str], refused: list[str]) -> None:
    (host,) = read_allowed_hosts([entry])
    assert [text for text in [*allowed, *refused] if host.allows(read_url(text))] == allowed


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "a.*", "https://a.example", "a.example/", "a b", "*.0.0.1", "*.[::1]", "::1"]
    + ["bücher.example", "127.1", "u@a.example", "a.example:0", "**.a.example", "*.*.example"],
)
def test_refuses_odd_entries(entry: str) -> None:
    with pytest.raises(SetupError, match=r"not a host|no hosts"):
        read_allowed_hosts([entry])
