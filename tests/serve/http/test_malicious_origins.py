"""Pages of other sites, and names that others gave this machine."""

from collections.abc import Iterator

import httpx2
import pytest

from ..running import Local, local, small
from .asking import PROMPT, Answer, error_of, post, raw, request
from .conftest import unharmed

STUDIO = "https://studio.example.com"
OTHERS = [
    "null",
    "https://evil.example.com",
    "http://127.0.0.1",
    "http://127.0.0.1:1",
    "http://localhost",
    "http://[::1",
    "http://\xe9",
    "//",
    "",
    "file://",
    "https://studio.example.com.evil.example.com",
]


@pytest.fixture(scope="module")
def without_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local(tmp_path_factory.mktemp("without-keys") / "data", auth="off") as running:
        running.client.headers.pop("authorization")
        yield running


@pytest.fixture(scope="module")
def with_cors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("with-cors") / "data"
    with local(folder, cors_origin=(STUDIO,)) as running:
        yield running


def cookie(running: Local) -> str:
    return f"Cookie: {signed_in(running)}"


def signed_in(running: Local) -> str:
    """The cookie of a page that is."""
    answer = httpx2.post(f"{running.url}/session", json={"key": running.key})
    assert answer.status_code == 204
    told: str = answer.headers["set-cookie"]
    return told.partition(";")[0]


def ask(running: Local, method: str, path: str, *headers: str, host: str = "") -> Answer | None:
    own = running.url.removeprefix("http://")
    return raw(running, request(method, path, *headers, host=host or own))


def preflight(running: Local, origin: str) -> httpx2.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    return running.client.request("OPTIONS", "/v1/videos", headers=headers)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("origin", OTHERS)
def test_another_sites_page_changes_nothing_with_the_cookie(attacked: Local, origin: str) -> None:
    video = attacked.create(PROMPT)["id"]
    before = attacked.service.store.known()
    for method, path in (
        ("POST", "/v1/videos"),
        ("POST", f"/v1/videos/{video}/cancel"),
        ("DELETE", f"/v1/videos/{video}"),
        ("DELETE", "/session"),
        ("POST", "/session"),
    ):
        answer = ask(attacked, method, path, cookie(attacked), f"Origin: {origin}")
        error_of(answer, 403, "wrong_origin")
    assert attacked.service.store.known() == before


def test_our_own_page_may_ask_with_the_cookie(attacked: Local) -> None:
    headers = {
        "Cookie": signed_in(attacked),
        "Origin": attacked.url,
        "Authorization": "",
    }
    answer = attacked.client.post("/v1/videos", json=small(PROMPT), headers=headers)
    assert answer.status_code == 200
    gone = attacked.client.delete(f"/v1/videos/{answer.json()['id']}", headers=headers)
    assert gone.status_code == 200


def test_no_name_at_all_is_no_page_of_ours(attacked: Local) -> None:
    head = f"DELETE /session HTTP/1.0\r\n{cookie(attacked)}\r\nOrigin: null\r\n\r\n"
    error_of(raw(attacked, head.encode()), 403, "wrong_origin")


def test_the_cookie_is_the_pages_alone(attacked: Local) -> None:
    with httpx2.Client(base_url=attacked.url) as page:
        answer = page.post("/session", json={"key": f" {attacked.key} "})
        assert answer.status_code == 204
        told = answer.headers["set-cookie"].lower()
        for word in ("httponly", "samesite=strict", "path=/"):
            assert word in told
        assert "domain" not in told
        assert "secure" not in told  # it is plain HTTP here
        assert page.get("/v1/videos").status_code == 200
        assert page.get("/session").json() == {"needed": True, "signed_in": True}
        assert page.delete("/session").status_code == 204
        assert page.get("/session").json() == {"needed": True, "signed_in": False}
        error_of(page.get("/v1/videos"), 401)


def test_nothing_is_said_to_other_sites_unless_that_is_set(attacked: Local) -> None:
    for origin in (STUDIO, "null", attacked.url):
        answer = attacked.client.get("/v1/videos", headers={"Origin": origin})
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        answer = preflight(attacked, origin)
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_site_that_is_set_may_ask(with_cors: Local) -> None:
    answer = preflight(with_cors, STUDIO)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == STUDIO
    assert "access-control-allow-credentials" not in answer.headers
    answer = with_cors.client.post("/v1/videos", json=small(), headers={"Origin": STUDIO})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == STUDIO
    assert "origin" in answer.headers["vary"].lower()
    refused = httpx2.get(f"{with_cors.url}/v1/videos", headers={"Origin": STUDIO})
    error_of(refused, 401)
    assert refused.headers["access-control-allow-origin"] == STUDIO  # or its page could not read it


@pytest.mark.parametrize("origin", [*OTHERS[:4], OTHERS[-1], STUDIO.upper(), f"{STUDIO}/", "*"])
def test_other_sites_may_not_ask_though_one_is_set(with_cors: Local, origin: str) -> None:
    answer = preflight(with_cors, origin)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    answer = with_cors.client.get("/v1/videos", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    answer = with_cors.client.post("/v1/videos", json=small(PROMPT), headers={"Origin": origin})
    error_of(answer, 403, "wrong_origin")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:8000",
        "127.0.0.1.evil.example.com",
        "localhost.evil.example.com",
        "127.0.0.2",
        "0.0.0.0",
        "[::1",
        "[::2]",
        "user@evil.example.com",
        "127.0.0.1@evil.example.com",
        "\xe9",
    ],
)
@pytest.mark.parametrize("path", ["/", "/v1/videos", "/liveness", "/session", "/page/main.js"])
def test_without_keys_no_other_name_opens_the_server(
    without_keys: Local, path: str, host: str
) -> None:
    error_of(ask(without_keys, "GET", path, host=host), 403, "wrong_host")


def test_without_keys_own_names_open_it(without_keys: Local) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "LOCALHOST:8000", "127.0.0.1:1"):
        answer = ask(without_keys, "GET", "/v1/videos", host=host)
        assert answer is not None
        assert answer.status_code == 200
    told = without_keys.client.get("/session").json()
    assert told == {"needed": False, "signed_in": True}


def test_without_keys_and_without_a_name_it_stays_shut(without_keys: Local) -> None:
    error_of(raw(without_keys, b"GET /v1/videos HTTP/1.0\r\n\r\n"), 403, "wrong_host")


@pytest.mark.parametrize("origin", OTHERS)
def test_without_keys_other_sites_change_nothing(without_keys: Local, origin: str) -> None:
    harm = unharmed(without_keys)
    next(harm)
    data = post(without_keys, "/v1/videos", b'{"prompt": "A street"}', f"Origin: {origin}")
    error_of(raw(without_keys, data), 403, "wrong_origin")
    assert not without_keys.service.store.known()
    list(harm)
