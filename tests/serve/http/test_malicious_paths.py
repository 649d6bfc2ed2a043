"""Paths where ids and names are expected."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ..running import Local, local, small
from .asking import PROMPT, error_of, raw, request
from .conftest import unharmed

IDS = [
    "..",
    "../..",
    "../../entracte.db",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fentracte.db",
    "..%2f..%2fwebhook-secret",
    "..%5c..%5cwebhook-secret",
    "%252e%252e%252f",
    "%00",
    "video_" + "0" * 31 + "%00",
    "video_" + "0" * 32 + "%00.png",
    "video_" + "0" * 32 + "%0a",
    "video_" + "0" * 32 + "/..",
    "video_" + "A" * 32,
    "video_" + quote("٠" * 32),
    "video_" + "0" * 5000,
    "video_*",
    "%ff%fe",
    quote("видео"),
    "'%20OR%201=1--",
    "%7b%7d",
    "-1",
]

ROUTES = [
    ("GET", "/v1/videos/{}"),
    ("DELETE", "/v1/videos/{}"),
    ("POST", "/v1/videos/{}/cancel"),
    ("GET", "/v1/videos/{}/content"),
    ("HEAD", "/v1/videos/{}/content"),
    ("GET", "/v1/videos/{}/images/0"),
    ("GET", "/v1/videos/{}/events"),
]


@pytest.fixture(scope="module")
def with_loras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A service with one LoRA, and another file beside its folder."""
    folder = tmp_path_factory.mktemp("with-loras")
    (folder / "loras").mkdir()
    (folder / "secret.safetensors").write_bytes(b"")
    (folder / "loras" / "style.safetensors").write_bytes(b"")
    (folder / "loras" / "..hidden.safetensors").write_bytes(b"")
    with local(folder / "data", lora_folder=folder / "loras") as running:
        yield running


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_what_is_no_id_is_no_video(attacked: Local, method: str, route: str) -> None:
    key = f"Authorization: Bearer {attacked.key}"
    for video_id in IDS:
        answer = raw(attacked, request(method, route.format(video_id), key))
        assert answer is not None
        # 405: the path is another one.
        assert answer.status_code in (404, 405), video_id
        if method != "HEAD":
            error_of(answer, answer.status_code)
        assert str(attacked.service.folder.root).encode() not in answer.content


@pytest.mark.parametrize("path", ["/v1/videos?after={}", "/v1/models/{}"])
def test_what_is_no_id_is_nothing_elsewhere(attacked: Local, path: str) -> None:
    key = f"Authorization: Bearer {attacked.key}"
    for name in IDS:
        answer = raw(attacked, request("GET", path.format(name), key))
        assert answer is not None
        error_of(answer, 400 if answer.status_code == 400 else 404)  # 400: it is too long


@pytest.mark.parametrize("number", ["-1", "1", "999", "1001", "9" * 5000, "0x0", "%00", "a"])
def test_what_is_no_number_of_an_image_is_no_image(attacked: Local, number: str) -> None:
    video = attacked.create(PROMPT)
    answer = attacked.client.get(f"/v1/videos/{video['id']}/images/{number}")
    error_of(answer, 404 if number in ("1", "999") else 400)


@pytest.mark.parametrize(
    "name",
    [
        *IDS,
        "../http/app.py",
        "..%2fhttp%2fapp.py",
        "%2e%2e/%2e%2e/keys.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "main.js%00.html",
        "style/../main.js",
        "./main.js",
        "MAIN.JS",
        "main.js/",
        "style",
        "",
    ],
    ids=lambda name: name[:40],
)
def test_the_page_has_no_other_files(attacked: Local, name: str) -> None:
    error_of(raw(attacked, request("GET", f"/page/{name}")), 404, "not_found")


def test_the_way_to_the_page_leads_past_no_gate(attacked: Local) -> None:
    for path in ("/page/../v1/videos", "/page/..%2fv1/videos", "//v1/videos", "/page/%2e%2e/v1"):
        answer = raw(attacked, request("GET", path))
        assert answer is not None
        assert answer.status_code in (401, 404)
        error_of(answer, answer.status_code)


def test_bytes_that_no_path_has_are_refused(attacked: Local) -> None:
    for path in (
        "/v1/videos/\xff",
        "/v1/videos/\x01",
        "/v1/ videos",
        "*",
        "v1/videos",
        "x" * 99_999,
    ):
        answer = raw(attacked, request("GET", path, f"Authorization: Bearer {attacked.key}"))
        assert answer is None or answer.status_code in (400, 404)


@pytest.mark.parametrize(
    "name",
    ["../secret", "..hidden", "style.safetensors", "loras/style", "/etc/passwd", "style\0", ""]
    + ["STYLE", "style\n", "*", "x" * 5000],
    ids=lambda name: repr(name[:16]),
)
def test_a_lora_is_known_by_its_name_alone(with_loras: Local, name: str) -> None:
    harm = unharmed(with_loras)
    next(harm)
    asked = small(PROMPT, loras=[{"name": name}])
    for path in ("/v1/videos", "/v1/videos/estimate"):
        error = error_of(with_loras.client.post(path, json=asked), 400, "lora_not_found", "loras")
        assert len(error["message"]) < 200
    list(harm)


def test_the_loras_are_those_of_the_folder(with_loras: Local, tmp_path: Path) -> None:
    listed = with_loras.client.get("/v1/loras").json()["data"]
    assert listed == [{"id": "style", "object": "lora", "bytes": 0}]
    video = with_loras.create(loras=[{"name": "style", "strength": 0.7}])
    assert video["settings"]["loras"] == [{"name": "style", "strength": 0.7}]


@pytest.mark.parametrize(
    "model", ["../ltx-2.3", "/etc/passwd", "ltx-2.3\0", "", "LTX-2.3", "x" * 5000]
)
def test_a_model_is_known_by_its_name_alone(attacked: Local, model: str) -> None:
    answer = attacked.client.post("/v1/videos", json=small(PROMPT, model=model))
    if model == "":  # is no name: as if it were left out
        assert answer.json()["model"] == "ltx-2.3"
        return
    error = error_of(answer, 404, "model_not_found", "model")
    assert len(error["message"]) < 200
