"""Pages that are signed in: by a secret of their own, for a while, until they or their key end."""

import secrets
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Engine

from entracte.serve.jobs.database import open_database
from entracte.serve.keys import KeyStore
from entracte.serve.sessions import SESSION_SECONDS, SESSIONS_OF_A_KEY, SessionStore

from ..running import Local, local
from .asking import error_of, raw, request


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "test.db")
    yield engine
    engine.dispose()


def test_a_session_ends_in_time_at_sign_out_and_with_its_key(database: Engine) -> None:
    now = 1000.0
    keys = KeyStore(database)
    sessions = SessionStore(database, keys, lambda: now)
    key, _ = keys.add("ann")
    first, second, third = (sessions.begin(key) for _ in range(3))
    assert sessions.find(first) == key
    assert sessions.find("x") is None
    sessions.end(first)
    sessions.end("x")
    assert sessions.find(first) is None
    again = SessionStore(database, KeyStore(database), lambda: now)  # after a restart
    assert again.find(second) == again.find(third) == key
    now += SESSION_SECONDS
    assert again.find(second) is None
    now -= SESSION_SECONDS
    keys.revoke("ann")
    assert SessionStore(database, KeyStore(database), lambda: now).find(third) is None


def test_a_key_has_no_more_than_so_many_sessions(database: Engine) -> None:
    now = 1000.0
    keys = KeyStore(database)
    sessions = SessionStore(database, keys, lambda: now)
    ann, bob = keys.add("ann")[0], keys.add("bob")[0]
    of_bob = sessions.begin(bob)
    of_ann = []
    for _ in range(SESSIONS_OF_A_KEY + 2):
        now += 1
        of_ann.append(sessions.begin(ann))
    found = [sessions.find(secret) for secret in of_ann]
    assert found == [None, None] + [ann] * SESSIONS_OF_A_KEY
    assert sessions.find(of_bob) == bob


def cookie_of(answer: httpx2.Response) -> tuple[str, str, str]:
    """Name, value, and attributes in lower case."""
    header = answer.headers["set-cookie"]
    ((name, morsel),) = SimpleCookie(header).items()
    return name, morsel.value, header.lower()


def test_the_cookie_is_no_key_and_named_by_the_port(attacked: Local) -> None:
    answer = httpx2.post(f"{attacked.url}/session", json={"key": attacked.key})
    name, value, _ = cookie_of(answer)
    assert name == f"entracte-{attacked.url.rpartition(':')[2]}"
    assert attacked.key not in value
    headers = {"Cookie": f"{name}={value}"}
    assert httpx2.get(f"{attacked.url}/v1/videos", headers=headers).status_code == 200
    # Not as a key, nor the key as a cookie, nor under another port's name.
    error_of(
        httpx2.get(f"{attacked.url}/v1/videos", headers={"Authorization": f"Bearer {value}"}), 401
    )
    for wrong in (f"{name}={attacked.key}", f"entracte-1={value}", f"entracte-key={attacked.key}"):
        error_of(httpx2.get(f"{attacked.url}/v1/videos", headers={"Cookie": wrong}), 401)


def test_signing_out_ends_the_session_and_not_only_the_cookie(attacked: Local) -> None:
    with httpx2.Client(base_url=attacked.url) as page:
        name, value, _ = cookie_of(page.post("/session", json={"key": attacked.key}))
        page.delete("/session")
    answer = httpx2.get(f"{attacked.url}/v1/videos", headers={"Cookie": f"{name}={value}"})
    error_of(answer, 401, "invalid_api_key")


def test_a_revoked_keys_sessions_end(attacked: Local) -> None:
    key, secret = attacked.service.keys.add(f"revoked {secrets.token_hex(8)}")
    with httpx2.Client(base_url=attacked.url) as page:
        page.post("/session", json={"key": secret})
        assert page.get("/session").json()["signed_in"] is True
        attacked.service.keys.revoke(key.id)
        assert page.get("/session").json()["signed_in"] is False


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False])
def test_behind_tls_the_cookie_is_this_hosts_alone(tmp_path: Path, trusted: bool) -> None:
    proxies = ("127.0.0.1",) if trusted else ()
    with local(tmp_path / "data", ready=False, trusted_proxy=proxies) as running:
        headers = {"Host": "video.example.com", "X-Forwarded-Proto": "https"}
        answer = running.client.post("/session", json={"key": running.key}, headers=headers)
        name, value, header = cookie_of(answer)
        assert name == ("__Host-entracte-443" if trusted else "entracte-80")
        assert ("secure" in header) is trusted
        assert "path=/" in header
        assert "domain" not in header
        with_cookie = headers | {"Cookie": f"{name}={value}", "Authorization": ""}
        assert running.client.get("/v1/videos", headers=with_cookie).status_code == 200
        gone = running.client.delete("/session", headers=with_cookie)
        assert cookie_of(gone)[0] == name


@pytest.mark.parametrize("host", ["a:0", "a:x", "a:99999", "[::1", "", "a:-1", "a:²"])
def test_a_host_that_is_none_signs_nobody_in(attacked: Local, host: str) -> None:
    answer = raw(attacked, request("GET", "/session", host=host.encode().decode("latin-1")))
    assert answer is not None
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.json() == {"needed": True, "signed_in": False}
