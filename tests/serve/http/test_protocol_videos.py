"""Videos that were asked for: pages, content, cancelling, deleting, asking twice, limits."""

import errno
import io
import re
import secrets
from pathlib import Path
from typing import Any

import av
import httpx2
import pytest
from PIL import Image

from entracte.serve.http.content import file_stem

from ..fake_runner import OpenFake
from ..running import Local, local, small, wait_for
from .asking import PROMPT, error_of, png

SLOW = "steps 3000"


@pytest.fixture(scope="module")
def done(shared: Local) -> str:
    """A finished video."""
    video: str = shared.create("steps 10")["id"]
    assert shared.ended(video)["status"] == "completed"
    return video


def ask(running: Local, key: str, **fields: Any) -> httpx2.Response:
    headers = {"Idempotency-Key": key}
    return running.client.post("/v1/videos", json=small() | fields, headers=headers)


def test_videos_are_listed_by_page_in_either_order(tmp_path: Path) -> None:
    with local(tmp_path / "data") as running:
        listed = running.client.get("/v1/videos").json()
        empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
        assert listed == empty
        asked = [running.create(f"Street {number}")["id"] for number in range(7)]
        for order, wanted in (("asc", asked), ("desc", asked[::-1])):
            found: list[str] = []
            after: dict[str, str] = {}
            for count in (3, 3, 1):
                params = {"limit": "3", "order": order} | after
                page = running.client.get("/v1/videos", params=params).json()
                ids = [video["id"] for video in page["data"]]
                assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
                assert page["has_more"] is (count == 3)
                found += ids
                after = {"after": ids[-1]}
            assert found == wanted
        assert [each["id"] for each in running.client.get("/v1/videos").json()["data"]] == wanted
        full = running.client.get("/v1/videos", params={"limit": 7}).json()
        assert full["has_more"] is False
        none = running.client.get("/v1/videos", params={"limit": 0}).json()
        assert none == empty | {"has_more": True}


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_who_deletes_what_a_page_shows_sees_all_pages(shared: Local, order: str) -> None:
    """As `for video in client.videos.list(): client.videos.delete(video.id)` does."""
    _, secret = shared.service.keys.add(f"pages {order}")
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=shared.url, headers=headers) as client:
        asked = {client.post("/v1/videos", json=small()).json()["id"] for _ in range(5)}
        deleted = set()
        params, more = {"limit": "2", "order": order}, True
        while more:
            page = client.get("/v1/videos", params=params).json()
            for video in page["data"]:
                assert client.delete(f"/v1/videos/{video['id']}").status_code == 200
                deleted.add(video["id"])
            more, params = page["has_more"], params | {"after": page["last_id"]}
        assert deleted == asked
    for unknown in (params["after"], "video_" + "0" * 32, "x"):  # somebody else's, and nobody's
        answer = shared.client.get("/v1/videos", params={"after": unknown})
        error_of(answer, 404, "video_not_found", "after")


@pytest.mark.parametrize(
    ("params", "param"),
    [({"limit": -1}, "limit"), ({"limit": 101}, "limit"), ({"limit": "x"}, "limit")]
    + [({"order": "up"}, "order"), ({"after": "x" * 101}, "after")],
)
def test_a_page_that_there_is_not(shared: Local, params: dict[str, Any], param: str) -> None:
    error_of(shared.client.get("/v1/videos", params=params), 400, "invalid_value", param)


def test_a_video_says_when_to_ask_again_until_it_is_done(shared: Local, done: str) -> None:
    running = shared.create(SLOW)["id"]
    answer = shared.client.get(f"/v1/videos/{running}")
    assert int(answer.headers["openai-poll-after-ms"]) > 0
    assert "openai-poll-after-ms" not in shared.client.get(f"/v1/videos/{done}").headers
    shared.client.delete(f"/v1/videos/{running}")


def test_there_is_no_content_before_the_end_and_none_of_a_failed_one(shared: Local) -> None:
    video = shared.create(SLOW)["id"]
    wait_for(lambda: shared.video(video)["status"] == "in_progress")
    waiting = shared.create()["id"]
    for variant in ("video", "thumbnail", "spritesheet"):
        for each, code in ((video, "video_in_progress"), (waiting, "video_queued")):
            address = f"/v1/videos/{each}/content?variant={variant}"
            answer = shared.client.get(address)
            error_of(answer, 409, code)
            assert answer.headers["x-should-retry"] == "false"
            assert shared.client.head(address).status_code == 409
    shared.client.post(f"/v1/videos/{video}/cancel")
    assert shared.ended(video)["error"] == {"code": "cancelled", "message": "Cancelled."}
    error_of(shared.client.get(f"/v1/videos/{video}/content"), 409, "video_failed")
    assert shared.ended(waiting)["status"] == "completed"


def test_cancelling_twice_is_cancelling_once(shared: Local, done: str) -> None:
    first, second = shared.create(SLOW)["id"], shared.create(SLOW)["id"]
    wait_for(lambda: shared.video(first)["status"] == "in_progress")
    for video in (second, first):
        for _ in range(3):
            answer = shared.client.post(f"/v1/videos/{video}/cancel")
            assert answer.status_code == 200
            assert answer.json()["id"] == video
        assert shared.ended(video)["error"]["code"] == "cancelled"
    before = shared.video(done)
    assert shared.client.post(f"/v1/videos/{done}/cancel").json() == before


def test_a_deleted_video_is_gone_with_its_files(shared: Local) -> None:
    finished, running, waiting = shared.create()["id"], None, None
    shared.ended(finished)
    running = shared.create(SLOW)["id"]
    wait_for(lambda: shared.video(running)["status"] == "in_progress")
    waiting = shared.create()["id"]
    for video in (finished, waiting, running):
        answer = shared.client.delete(f"/v1/videos/{video}")
        assert answer.json() == {"id": video, "object": "video.deleted", "deleted": True}
        for path in ("", "/content", "/events", "/images/0"):
            error_of(shared.client.get(f"/v1/videos/{video}{path}"), 404, "video_not_found")
        error_of(shared.client.delete(f"/v1/videos/{video}"), 404, "video_not_found")
        listed = shared.client.get("/v1/videos").json()["data"]
        assert video not in {each["id"] for each in listed}
        wait_for(lambda video=video: not shared.service.folder.of_video(video).exists())
    wait_for(lambda: running not in shared.service.store.known())


def test_parts_of_a_video(shared: Local, done: str) -> None:
    address = f"/v1/videos/{done}/content"
    whole = shared.client.get(address)
    assert whole.status_code == 200
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert "private" in whole.headers["cache-control"]
    size = len(whole.content)
    for wanted, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=10-", 10, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=0-{size * 2}", 0, size),
    ):
        answer = shared.client.get(address, headers={"Range": wanted})
        assert answer.status_code == 206
        assert answer.content == whole.content[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    error_of(shared.client.get(address, headers={"Range": f"bytes={size}-"}), 416)
    head = shared.client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == size
    # A file that was changed meanwhile is sent whole.
    changed = {"Range": "bytes=0-0", "If-Range": '"another"'}
    assert shared.client.get(address, headers=changed).status_code == 200


def test_pictures_of_a_video(shared: Local, done: str) -> None:
    for variant, kind, media_type in (
        ("thumbnail", "WEBP", "image/webp"),
        ("spritesheet", "JPEG", "image/jpeg"),
    ):
        for _ in range(2):
            answer = shared.client.get(f"/v1/videos/{done}/content", params={"variant": variant})
            assert answer.headers["content-type"] == media_type
            assert Image.open(io.BytesIO(answer.content)).format == kind
    answer = shared.client.get(f"/v1/videos/{done}/content", params={"variant": "audio"})
    error_of(answer, 400, "invalid_value", "variant")
    with av.open(io.BytesIO(shared.client.get(f"/v1/videos/{done}/content").content)) as file:
        assert file.streams.video[0].codec_context.name == "h264"


def test_a_download_is_one(shared: Local, done: str) -> None:
    for variant, ending in (("video", "mp4"), ("thumbnail", "webp"), ("spritesheet", "jpg")):
        for download, kind in (("1", "attachment"), ("0", "inline")):
            params = {"variant": variant, "download": download}
            answer = shared.client.get(f"/v1/videos/{done}/content", params=params)
            told = answer.headers["content-disposition"]
            assert told.startswith(f"{kind}; filename=")
            assert re.fullmatch(rf'{kind}; filename="\d{{4}}-\d\d-\d\d-steps-10\.{ending}"', told)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A lighthouse at dusk, waves", "A-lighthouse-at-dusk-waves"),
        ("..\\../etc/passwd\r\nSet-Cookie: a=b", "etc-passwd-Set-Cookie-a-b"),
        ('"; filename="x.exe', "filename-x-exe"),
        ("灯台と波、霧笛", "灯台と波-霧笛"),
        ("एक दीपस्तंभ", "एक-दीपस्तंभ"),
        ("\u202egpj.exe\x00\ud800", "gpj-exe"),
        ("…!", "video"),
        ("word " * 100, "word-word-word-word-word-word-word-word-word-word"),
    ],
)
def test_a_file_is_called_after_its_prompt(prompt: str, name: str) -> None:
    assert file_stem(prompt, 1_795_666_485.0) == f"2026-11-26-{name}"


def test_the_same_request_twice_is_one_video(shared: Local) -> None:
    key = secrets.token_hex(8)
    first = ask(shared, key).json()
    shared.ended(first["id"])
    again = ask(shared, key)
    assert again.status_code == 200
    assert again.json()["id"] == first["id"]
    assert again.json()["status"] == "completed"
    assert ask(shared, secrets.token_hex(8)).json()["id"] != first["id"]
    for other in ({"prompt": "Another"}, {"seed": 1}, {"size": "128x64"}):
        error_of(ask(shared, key, **other), 422, "idempotency_key_reused", "Idempotency-Key")
    headers = {"Idempotency-Key": key}
    files = {"input_reference": ("a.png", png(), "image/png")}
    form = {name: str(value) for name, value in small().items()}
    answer = shared.client.post("/v1/videos", data=form, files=files, headers=headers)
    error_of(answer, 422)


def test_the_same_images_twice_leave_one_folder(shared: Local) -> None:
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    form = {name: str(value) for name, value in small().items()}

    def send(colour: str) -> httpx2.Response:
        files = {"input_reference": ("a.png", png(color=colour), "image/png")}
        return shared.client.post("/v1/videos", data=form, files=files, headers=headers)

    ids = {send("red").json()["id"] for _ in range(3)}
    assert len(ids) == 1
    error_of(send("blue"), 422, "idempotency_key_reused")
    folders = {each.name for each in shared.service.folder.videos.iterdir()}
    assert folders <= shared.service.store.known()


def test_a_deleted_video_does_not_come_back_by_its_idempotency_key(shared: Local) -> None:
    key = secrets.token_hex(8)
    first = ask(shared, key, prompt=SLOW).json()["id"]
    wait_for(lambda: shared.video(first)["status"] == "in_progress")
    shared.client.delete(f"/v1/videos/{first}")
    again = ask(shared, key, prompt=SLOW).json()["id"]
    assert again != first
    assert shared.video(again)["status"] in ("queued", "in_progress")
    shared.client.delete(f"/v1/videos/{again}")


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    runner = OpenFake(estimate_s=7.0)
    with local(tmp_path / "data", runner, max_queued=3, max_queued_per_key=2) as running:
        headers = {"Authorization": f"Bearer {running.service.keys.add('other')[1]}"}
        key = secrets.token_hex(8)
        first = running.create(SLOW)["id"]
        wait_for(lambda: running.video(first)["status"] == "in_progress")
        kept = ask(running, key).json()["id"]
        running.create()
        files = {"input_reference": ("a.png", png(), "image/png")}
        form = {name: str(value) for name, value in small(PROMPT).items()}
        answer = running.client.post("/v1/videos", data=form, files=files)
        error = error_of(answer, 429, "queue_full")
        assert "2 of your videos" in error["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert ask(running, key).json()["id"] == kept  # it is there already
        answer = running.client.post("/v1/videos", json=small(), headers=headers)
        assert answer.status_code == 200  # others may still ask
        answer = running.client.post("/v1/videos", json=small(), headers=headers)
        error = error_of(answer, 429, "queue_full")
        assert "the queue is full" in error["message"].lower()
        folders = {each.name for each in running.service.folder.videos.iterdir()}
        assert folders <= running.service.store.known()
        engine = running.client.get("/v1/engine").json()
        assert engine["queue"] | {"seconds": 0} == {
            "queued": 3,
            "running": 1,
            "limit": 3,
            "seconds": 0,
        }
        assert PROMPT not in running.log.getvalue()
        running.client.delete(f"/v1/videos/{first}")
        running.ended(kept)
        assert running.client.post("/v1/videos", json=small()).status_code == 200


def test_numbers_and_the_log_tell_nothing_of_whose_video_it_was(shared: Local) -> None:
    video = shared.create(PROMPT)["id"]
    shared.ended(video)
    shared.client.get(f"/v1/videos/{video}/content?variant=thumbnail")
    shared.client.get(f"/v1/videos/{'0' * 5}/content")
    answer = shared.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    owner = shared.service.keys.list()[0].id
    for word in (PROMPT, video, shared.key, owner, str(shared.service.folder.root)):
        assert word not in answer.text
    assert 'route="/v1/videos/{video_id}/content"' in answer.text
    assert 'entracte_videos_total{outcome="completed",reason=""}' in answer.text
    log = shared.log.getvalue()
    for word in (PROMPT, shared.key, "variant=", "Bearer"):
        assert word not in log
    assert f'"video": "{video}"' in log


@pytest.mark.parametrize("kept", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("variant", ["video", "thumbnail", "spritesheet"])
def test_a_file_that_is_not_as_it_was_made_is_not_sent(
    shared: Local, done: str, kept: float, variant: str
) -> None:
    path = shared.service.folder.video(done)
    whole = path.read_bytes()
    try:
        path.write_bytes((whole + whole)[: int(len(whole) * kept)])
        for method in ("GET", "HEAD"):
            address = f"/v1/videos/{done}/content?variant={variant}"
            assert shared.client.request(method, address).status_code == 404
        error_of(shared.client.get(address), 404, "file_gone", "video_id")
    finally:
        path.write_bytes(whole)
    assert shared.client.get(f"/v1/videos/{done}/content").status_code == 200


def test_a_picture_that_cannot_be_kept_is_no_damage(
    shared: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = shared.create()["id"]
    shared.ended(video)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    answer = shared.client.get(f"/v1/videos/{video}/content?variant=thumbnail")
    error_of(answer, 503, "storage_failed")
