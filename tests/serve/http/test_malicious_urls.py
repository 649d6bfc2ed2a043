"""URLs that lead where the server should not ask. The guard has its own tests."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..outbound.servers import OK, Served, answering, redirecting, serving
from ..running import Hooks, Local, local, small, wait_for
from .asking import PROMPT, error_of, png, post
from .conftest import unharmed

PICTURE = answering("200 OK", {"Content-Type": "image/png"}, png())
INSIDE = [
    "http://127.0.0.1/",
    "http://localhost/",
    "http://[::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "https://example.com/a.png",
    "http://2130706433/",
    "gopher://127.0.0.1/",
]

Ask = Callable[[str], dict[str, object]]
WAYS: list[Ask] = [
    lambda url: {"input_reference": url},
    lambda url: {"input_reference": {"image_url": url}},
    lambda url: {"images": [{"image": url, "frame": 8}]},
]


@pytest.fixture(scope="module")
def inside() -> Iterator[Served]:
    """A server that nobody is to reach."""
    with serving(OK) as served:
        yield served


@pytest.fixture(scope="module")
def pictures(inside: Served) -> Iterator[Served]:
    """The server that is allowed."""
    answers = {
        "/a.png": PICTURE,
        "/page": answering("200 OK", {"Content-Type": "text/html"}, b"<html>"),
        "/gone": answering("404 Not Found", {}, b""),
        "/inside": redirecting(f"{inside.url}/a.png"),
        "/metadata": redirecting("http://169.254.169.254/latest/meta-data/"),
        "/file": redirecting("file:///etc/passwd"),
        "/large": answering("200 OK", {}, png() + b"\0" * 2_000_000),
        "/hook": redirecting(f"{inside.url}/hook"),
    }
    with serving(answers) as served:
        yield served


@pytest.fixture(scope="module")
def allowing(
    tmp_path_factory: pytest.TempPathFactory, pictures: Served, inside: Served
) -> Iterator[Local]:
    """A service that may ask one server of this machine."""
    host = (f"127.0.0.1:{pictures.port}",)
    settings = {
        "image_host": host,
        "webhook_host": host,
        "allow_http": True,
        "allow_network": ("127.0.0.0/8",),
        "max_image_bytes": 1_000_000,
    }
    folder = tmp_path_factory.mktemp("allowing") / "data"
    with local(folder, **settings) as running:
        yield running
    assert not inside.requests


@pytest.mark.parametrize("url", INSIDE)
@pytest.mark.parametrize("way", WAYS)
def test_no_image_is_fetched_unless_that_is_allowed(attacked: Local, way: Ask, url: str) -> None:
    answer = attacked.client.post("/v1/videos", json=small(PROMPT, **way(url)))
    error_of(answer, 400, "url_not_allowed", "input_reference")


@pytest.mark.parametrize("url", INSIDE)
def test_nobody_is_told_unless_that_is_allowed(attacked: Local, url: str) -> None:
    for path in ("/v1/videos", "/v1/videos/estimate"):
        answer = attacked.client.post(path, json=small(PROMPT, webhook_url=url))
        error_of(answer, 400, "url_not_allowed", "webhook_url")
    data = {"prompt": PROMPT, "webhook_url": url}
    answer = attacked.client.post("/v1/videos", data=data)
    error_of(answer, 400, "url_not_allowed", "webhook_url")


@pytest.mark.slow
def test_an_allowed_host_at_a_private_address_is_not_asked(tmp_path: Path, inside: Served) -> None:
    host = (f"127.0.0.1:{inside.port}", f"localhost:{inside.port}")
    with local(tmp_path / "data", image_host=host, webhook_host=host, allow_http=True) as running:
        harm = unharmed(running)
        next(harm)
        for url in (f"{inside.url}/a.png", f"http://localhost:{inside.port}/a.png"):
            for way in WAYS:
                answer = running.client.post("/v1/videos", json=small(PROMPT, **way(url)))
                error_of(answer, 400, "url_not_allowed", "input_reference")
            answer = running.client.post("/v1/videos", json=small(PROMPT, webhook_url=url))
            error_of(answer, 400, "url_not_allowed", "webhook_url")
        assert not running.service.store.known()
        list(harm)
    assert not inside.requests


@pytest.mark.parametrize("path", ["/inside", "/metadata", "/file"])
@pytest.mark.parametrize("way", WAYS)
def test_no_redirect_is_followed_to_where_nothing_is_allowed(
    allowing: Local, pictures: Served, inside: Served, way: Ask, path: str
) -> None:
    harm = unharmed(allowing)
    next(harm)
    asked = small(PROMPT, **way(pictures.url + path))
    error = error_of(
        allowing.client.post("/v1/videos", json=asked), 400, "url_not_allowed", "input_reference"
    )
    assert "passwd" not in error["message"]
    assert "meta-data" not in error["message"]
    assert not inside.requests
    list(harm)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/page", "invalid_image"), ("/gone", "url_failed"), ("/large", "url_failed")],
)
def test_what_is_fetched_is_held_to_the_same_limits(
    allowing: Local, pictures: Served, path: str, code: str
) -> None:
    harm = unharmed(allowing)
    next(harm)
    asked = small(PROMPT, input_reference=pictures.url + path)
    answer = allowing.client.post("/v1/videos", json=asked)
    error_of(answer, 400, code, "input_reference")
    list(harm)


def test_an_allowed_image_is_fetched_without_anything_of_ours(
    allowing: Local, pictures: Served
) -> None:
    for way in WAYS:
        video = allowing.create(PROMPT, **way(f"{pictures.url}/a.png"))
        back = allowing.client.get(f"/v1/videos/{video['id']}/images/0")
        assert back.content.startswith(b"\x89PNG")
    for request in pictures.requests:
        assert allowing.key.encode() not in request
        assert b"authorization" not in request.lower()


def test_a_webhook_is_not_redirected(allowing: Local, pictures: Served, inside: Served) -> None:
    video = allowing.create(PROMPT, webhook_url=f"{pictures.url}/hook")
    told = wait_for(lambda: [each for each in pictures.requests if video["id"].encode() in each])
    assert PROMPT.encode() not in told[0]
    assert allowing.key.encode() not in told[0]
    assert not inside.requests


@pytest.mark.slow
def test_an_allowed_webhook_is_told_of_that_video_alone(tmp_path: Path) -> None:
    hooks = Hooks()
    settings = hooks.settings | {"webhook_url": ()}
    host = (hooks.url.removeprefix("http://").removesuffix("/hook"),)
    with local(tmp_path / "data", webhook_host=host, **settings) as running:
        other = running.create(PROMPT)["id"]
        video = running.create(PROMPT, webhook_url=hooks.url)["id"]
        wait_for(lambda: hooks.told().get(video))
        assert other not in hooks.told()
        assert all(PROMPT.encode() not in body for _, body in hooks.taken)
        assert "webhook_url" not in running.video(video)["settings"]
    hooks.close()


@pytest.mark.slow
def test_a_host_that_does_not_answer_keeps_only_its_own_waiting(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as silent,
        serving({"/a.png": PICTURE}) as pictures,
        contextlib.ExitStack() as held,
    ):
        deaf = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = {
            "image_host": (deaf, f"127.0.0.1:{pictures.port}"),
            "webhook_host": (deaf,),
            "allow_http": True,
            "allow_network": ("127.0.0.0/8",),
        }
        with local(tmp_path / "data", **settings) as running:
            body = json.dumps(small(PROMPT, input_reference=f"http://{deaf}/a.png")).encode()
            port = int(running.url.rpartition(":")[2])
            for _ in range(30):
                connection = socket.create_connection(("127.0.0.1", port), 20)
                held.enter_context(connection).sendall(post(running, "/v1/videos", body))
            asked, _ = silent.accept()  # some are being fetched
            held.enter_context(asked)
            running.create(PROMPT)
            running.create(PROMPT, input_reference=f"{pictures.url}/a.png")
            silent.close()  # nobody is there to be waited for any more
            asked.close()
