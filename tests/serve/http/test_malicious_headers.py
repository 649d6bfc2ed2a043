"""Headers that are more than one, or say what they cannot."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import event

from ..running import Local, local, small, wait_for
from .asking import PROMPT, error_of, png, post, raw, request

BODY = b'{"prompt": "' + PROMPT.encode() + b'", "size": "64x64", "num_frames": 9}'


@pytest.fixture(scope="module")
def made(shared: Local) -> str:
    """A finished video."""
    data = {name: str(value) for name, value in small(PROMPT).items()}
    files = {"input_reference": ("a.png", png(), "image/png")}
    video: str = shared.client.post("/v1/videos", data=data, files=files).json()["id"]
    assert shared.ended(video)["status"] == "completed"
    return video


@pytest.mark.parametrize("end", ["\r", "\n", "\0", "\x0b", "\x7f"])
def test_an_idempotency_key_with_control_characters_makes_no_video(
    attacked: Local, end: str
) -> None:
    before = len(attacked.service.store.known())
    data = post(attacked, "/v1/videos", BODY, f"Idempotency-Key: a{end}X-Evil: 1")
    answer = raw(attacked, data)
    assert answer is not None
    assert "x-evil" not in answer.headers
    if end in "\r\n\0":
        assert answer.status_code in (200, 400)
    if answer.status_code == 400:
        assert len(attacked.service.store.known()) == before


def test_an_idempotency_key_is_not_told_back(attacked: Local) -> None:
    key = "K" * 255
    answer = attacked.client.post(
        "/v1/videos", json=small(PROMPT), headers={"Idempotency-Key": key}
    )
    assert answer.status_code == 200
    assert key not in answer.text + str(answer.headers) + attacked.log.getvalue()
    long = {"Idempotency-Key": key + "K"}
    answer = attacked.client.post("/v1/videos", json=small(PROMPT), headers=long)
    error_of(answer, 400, "invalid_value", "idempotency-key")


def test_an_idempotency_key_may_be_any_text(attacked: Local) -> None:
    for key in ("' OR 1=1 --", "é", "a,b", '"quoted"', "%00"):
        data = post(attacked, "/v1/videos", BODY, f"Idempotency-Key: {key}")
        first, again = raw(attacked, data), raw(attacked, data)
        assert first is not None
        assert again is not None
        assert first.status_code == again.status_code == 200
        assert first.json()["id"] == again.json()["id"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com/\n",
        "https://example.com\r\n\r\nGET / HTTP/1.1",
        "https://example.com/\0",
        "https://user:word@example.com/",
        "javascript:alert(1)",
        "",
        " ",
    ],
)
@pytest.mark.parametrize("path", ["/v1/videos", "/v1/videos/estimate"])
def test_a_webhook_url_that_is_none_is_refused(attacked: Local, path: str, url: str) -> None:
    answer = attacked.client.post(path, json=small(PROMPT, webhook_url=url))
    error_of(answer, 400, "url_not_allowed", "webhook_url")
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize(
    "seen", ["-1", "abc", "1.5", "\xb2", "\xbd", "", " ", "1; x", "0x1", "%00"]
)
def test_events_begin_anew_after_an_id_that_is_none(attacked: Local, made: str, seen: str) -> None:
    headers = (f"Authorization: Bearer {attacked.key}", f"Last-Event-ID: {seen}")
    answer = raw(attacked, request("GET", f"/v1/videos/{made}/events", *headers))
    assert answer is not None
    assert answer.status_code == 200
    assert b"event: video" in answer.content


def test_events_of_a_future_are_none(attacked: Local, made: str) -> None:
    address = f"/v1/videos/{made}/events"
    answer = attacked.client.get(address, headers={"Last-Event-ID": "9" * 40})
    assert (answer.status_code, answer.content) == (200, b"")
    error_of(attacked.client.get(address, headers={"Last-Event-ID": "9" * 41}), 400)


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=0-0", 206),
        ("bytes=0-0,-1", 206),
        ("bytes=0-99999999999999999999", 206),
        (",".join(["bytes=0-0", *(f"{n}-{n}" for n in range(2, 2000, 2))]), 200),
        (",".join(["bytes=0-"] * 90), 200),
        ("bytes=99999999-", 416),
        ("bytes=-0", 416),
        ("bytes=5-2", 400),
        ("bytes=", 400),
        ("bytes=-", 400),
        ("bytes=a-b", 400),
        ("bytes", 400),
        ("items=0-1", 200),
        ("bytes=\xb2-", 400),
        ("bytes=" + "9" * 5000 + "-", 400),
    ],
    ids=lambda wanted: str(wanted)[:20],
)
@pytest.mark.parametrize("path", ["content", "images/0"])
def test_a_range_is_a_part_or_an_error(
    attacked: Local, made: str, path: str, wanted: str, status: int
) -> None:
    headers = (f"Authorization: Bearer {attacked.key}", "Range: " + wanted)
    answer = raw(attacked, request("GET", f"/v1/videos/{made}/{path}", *headers))
    assert answer is not None
    if status >= 400:
        error_of(answer, status, "invalid_value", "Range")
        return
    # Parts that touch are told as one, which may be the whole.
    assert answer.status_code in (status, 206)
    size = len(attacked.client.get(f"/v1/videos/{made}/{path}").content)
    assert int(answer.headers["content-length"]) == len(answer.content) < size + 500


def test_a_range_beyond_the_end_is_told_the_size(attacked: Local, made: str) -> None:
    answer = attacked.client.get(f"/v1/videos/{made}/content", headers={"Range": "bytes=99999999-"})
    error_of(answer, 416)
    size = len(attacked.client.get(f"/v1/videos/{made}/content").content)
    assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("method", ["FOO", "TRACE", "CONNECT", "PATCH", "PUT", "QWERTY1"])
def test_methods_that_there_are_not(attacked: Local, method: str) -> None:
    key = f"Authorization: Bearer {attacked.key}"
    answer = raw(attacked, request(method, "/v1/videos", key))
    error_of(answer, 405, "method_not_allowed")
    error_of(raw(attacked, request(method, "/v1/videos")), 401)


def test_nobody_makes_up_labels_of_metrics(attacked: Local) -> None:
    for word in ("ZQXJ", "ZQXJV"):
        raw(attacked, request(word, f"/{word}", f"X-{word}: 1"))
    text = attacked.client.get("/metrics").text
    assert "ZQXJ" not in text + attacked.log.getvalue()
    assert 'method="other",route="other",status="401"' in text


def test_headers_without_end_are_refused(attacked: Local) -> None:
    answer = raw(attacked, request("GET", "/liveness", "X-Long: " + "x" * 200_000))
    assert answer is None or answer.status_code in (400, 431)
    many = [f"X-{number}: 1" for number in range(20_000)]
    answer = raw(attacked, request("GET", "/liveness", *many))
    assert answer is None or answer.status_code in (400, 431)


@pytest.mark.slow
def test_a_mistake_of_ours_is_told_without_its_words_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(tmp_path / "data") as running:

        def fail() -> None:
            raise RuntimeError(f"of {PROMPT} at {tmp_path}")

        monkeypatch.setattr(running.service, "workers", fail)
        answer = running.client.get("/v1/engine", headers={"Connection": "close"})
        error = error_of(answer, 500, "internal_error")
        assert error["message"] == "The server made a mistake."
        monkeypatch.undo()
        assert '"status": 500' in running.log.getvalue()
        assert PROMPT not in running.log.getvalue()
        counted = 'entracte_http_seconds_count{method="GET",route="/v1/engine",status="500"} 1.0'
        assert counted in running.client.get("/metrics").text


@pytest.mark.slow
def test_a_database_that_fails_is_told_of_without_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local(tmp_path / "data") as running:
        engine = running.service.database

        @event.listens_for(engine, "do_execute")
        def fail(cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO jobs"):
                raise sqlite3.OperationalError("disk I/O error")

        answer = running.client.post("/v1/videos", json=small(PROMPT))
        error_of(answer, 503, "storage_failed")
        assert int(answer.headers["retry-after"]) > 0
        event.remove(engine, "do_execute", fail)
        said = wait_for(running.log.getvalue)
        assert "disk I/O error" in said
        assert PROMPT not in said
        assert running.ended(running.create()["id"])["status"] == "completed"
