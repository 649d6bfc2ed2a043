"""Wrong keys, no keys, revoked keys, and the videos of other keys."""

import secrets
import time
from collections.abc import Iterator
from statistics import median

import httpx2
import pytest

from entracte.serve.jobs.database import open_database
from entracte.serve.keys import KeyStore

from ..running import PATIENCE, Local, small, wait_for
from .asking import PROMPT, error_of, png

NOBODYS = f"video_{'0' * 32}"

# What needs no key, as the documentation says.
OPEN = {("get", "/liveness"), ("get", "/session"), ("post", "/session"), ("delete", "/session")}


@pytest.fixture
def stranger(attacked: Local) -> Iterator[httpx2.Client]:
    """Whoever has another key."""
    _, secret = attacked.service.keys.add(f"stranger {secrets.token_hex(8)}")
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=attacked.url, headers=headers, timeout=PATIENCE) as client:
        yield client


@pytest.mark.slow
def test_a_thousand_wrong_keys_open_nothing_and_shut_nobody_out(attacked: Local) -> None:
    took: dict[int, list[float]] = {200: [], 401: []}
    for number in range(1000):
        guess = f"ek-{secrets.token_urlsafe(32)}"
        began = time.monotonic()
        answer = attacked.client.get("/v1/models", headers={"Authorization": f"Bearer {guess}"})
        took[401].append(time.monotonic() - began)
        error_of(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert guess not in answer.text
        if number % 10 == 0:
            began = time.monotonic()
            assert attacked.client.get("/v1/models").status_code == 200
            took[200].append(time.monotonic() - began)
    assert median(took[401]) < 5 * median(took[200])
    assert "ek-" not in attacked.log.getvalue()


@pytest.mark.parametrize(
    "told",
    [
        "",
        "Bearer",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer x{key}",
        "Bearer {key},{key}",
        "Bearer {key} {key}",
        "Bearer ek-",
        "Bearer \xff",
        "Bearer null",
        "Bearer " + "x" * 20_000,
        "Token {key}",
    ],
    ids=lambda told: told[:16],
)
def test_what_is_not_quite_the_key_opens_nothing(attacked: Local, told: str) -> None:
    header = told.replace("{key}", attacked.key).encode("latin-1")
    answer = attacked.client.get("/v1/videos", headers={"Authorization": header})
    error_of(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_is_taken_from_nowhere_else(attacked: Local) -> None:
    with httpx2.Client(base_url=attacked.url) as nobody:
        for name in ("key", "api_key", "token", "access_token", "authorization"):
            error_of(nobody.get("/v1/videos", params={name: attacked.key}), 401)
        error_of(nobody.get("/v1/videos", headers={"X-Api-Key": attacked.key}), 401)
        answer = nobody.post("/session", json={"key": "ek-wrong"})
        error_of(answer, 401, "invalid_api_key", "key")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "set-cookie" not in answer.headers


def test_every_route_but_the_open_ones_needs_a_key(attacked: Local) -> None:
    document = attacked.client.get("/openapi.json").json()
    routes = [(method, path) for path, methods in document["paths"].items() for method in methods]
    assert len(routes) > 15
    hidden = [
        ("head", "/v1/videos/{video_id}/content"),
        ("get", "/openapi.json"),
        ("get", "/docs"),
        ("get", "/nothing"),
        ("get", "/page"),
        ("get", "/liveness/"),
        ("get", "/LIVENESS"),
        ("get", "/session/../v1/videos"),
        ("options", "/v1/videos"),
    ]
    for method, path in routes + hidden:
        address = path.format(video_id=NOBODYS, number=0, model_id="ltx-2.3")
        answer = httpx2.request(method, attacked.url + address)
        operation = document["paths"].get(path, {}).get(method, {})
        needed = operation.get("security") != []
        assert needed == ((method, path) not in OPEN)
        if not needed:
            assert answer.status_code in (200, 204, 400), path
        elif method == "head":
            assert answer.status_code == 401
        else:
            error_of(answer, 401, "missing_api_key")
    for path in ("/", "/page/main.js"):
        assert httpx2.get(attacked.url + path).status_code == 200


def test_the_videos_of_others_are_not_there(attacked: Local, stranger: httpx2.Client) -> None:
    data = {name: str(value) for name, value in small(PROMPT).items()}
    files = {"input_reference": ("a.png", png(), "image/png")}
    done = attacked.client.post("/v1/videos", data=data, files=files).json()["id"]
    assert attacked.ended(done)["status"] == "completed"
    running = attacked.create("steps 3000")["id"]
    for video in (done, running, NOBODYS):
        for method, path in (
            ("GET", f"/v1/videos/{video}"),
            ("GET", f"/v1/videos/{video}/content"),
            ("GET", f"/v1/videos/{video}/images/0"),
            ("GET", f"/v1/videos/{video}/events"),
            ("POST", f"/v1/videos/{video}/cancel"),
            ("DELETE", f"/v1/videos/{video}"),
            ("GET", f"/v1/videos?after={video}"),
        ):
            # Word for word as if there were none.
            param = "after" if "after=" in path else "video_id"
            error = error_of(stranger.request(method, path), 404, "video_not_found", param)
            assert error["message"] == "This video does not exist."
    assert stranger.get("/v1/videos").json()["data"] == []
    wait_for(lambda: attacked.video(running)["status"] == "in_progress")
    engine = stranger.get("/v1/engine")
    assert engine.json()["workers"][0]["state"] == "busy"
    assert running not in engine.text
    assert running in attacked.client.get("/v1/engine").text
    assert attacked.client.delete(f"/v1/videos/{running}").status_code == 200
    assert attacked.client.get(f"/v1/videos/{done}/content").status_code == 200


def test_the_events_of_others_are_not_heard(attacked: Local, stranger: httpx2.Client) -> None:
    with stranger.stream("GET", "/v1/events") as events:
        lines = events.iter_lines()
        assert next(lines) == "event: engine"
        theirs = attacked.create(PROMPT)["id"]
        attacked.ended(theirs)
        attacked.client.delete(f"/v1/videos/{theirs}")
        own = stranger.post("/v1/videos", json=small()).json()["id"]
        heard = ""
        for line in lines:
            heard += line
            if own in line and '"completed"' in line:
                break
    assert theirs not in heard
    assert PROMPT not in heard


def test_an_idempotency_key_of_others_is_not_known(
    attacked: Local, stranger: httpx2.Client
) -> None:
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    mine = attacked.client.post("/v1/videos", json=small(PROMPT), headers=headers)
    theirs = stranger.post("/v1/videos", json=small("Another"), headers=headers)
    assert mine.status_code == theirs.status_code == 200
    assert mine.json()["id"] != theirs.json()["id"]


def test_a_revoked_key_opens_nothing_any_more(attacked: Local) -> None:
    key, secret = attacked.service.keys.add(f"revoked {secrets.token_hex(8)}")
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=attacked.url) as client:
        assert client.get("/v1/videos", headers=headers).status_code == 200
        assert client.post("/session", json={"key": secret}).status_code == 204
        assert client.get("/v1/videos").status_code == 200
        attacked.service.keys.revoke(key.id)
        error_of(client.get("/v1/videos", headers=headers), 401, "invalid_api_key")
        error_of(client.get("/v1/videos"), 401, "invalid_api_key")
        assert client.get("/session").json()["signed_in"] is False


@pytest.mark.slow
def test_a_key_that_the_command_revokes_opens_nothing_a_second_later(attacked: Local) -> None:
    database = open_database(attacked.service.folder.database)
    of_the_command = KeyStore(database)
    key, secret = of_the_command.add(f"command {secrets.token_hex(8)}")
    headers = {"Authorization": f"Bearer {secret}"}
    address = f"{attacked.url}/v1/models"
    wait_for(lambda: httpx2.get(address, headers=headers).status_code == 200)
    of_the_command.revoke(key.id)
    wait_for(lambda: httpx2.get(address, headers=headers).status_code == 401)
    database.dispose()
