"""Server-sent events: of a video, and of all of yours."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from entracte.serve.http import events as event_module

from ..running import Local, small, wait_for
from .asking import error_of

SLOW = "steps 3000"


@dataclass(frozen=True)
class Event:
    kind: str
    number: int | None
    data: Any


def read(lines: Iterator[str]) -> Iterator[Event]:
    """Events as a browser reads them."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            assert name in ("event", "id", "data")
            fields[name] = value
            continue
        if not fields:  # behind a comment
            continue
        number = fields.get("id")
        yield Event(
            fields["event"], None if number is None else int(number), json.loads(fields["data"])
        )
        fields = {}
    assert not fields, "the last event is not whole"


def all_of(answer: httpx2.Response) -> list[Event]:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return list(read(answer.iter_lines()))


def test_a_videos_events_end_with_it(shared: Local) -> None:
    video = shared.create("steps 60")["id"]
    with shared.client.stream("GET", f"/v1/videos/{video}/events") as answer:
        events = all_of(answer)
    assert {event.kind for event in events} == {"video"}
    numbers = [event.number for event in events]
    assert numbers == sorted(set(numbers), key=lambda number: number or 0)
    states = [event.data["status"] for event in events]
    assert states[-1] == "completed"
    assert "completed" not in states[:-1]
    progress = [event.data["progress"] for event in events]
    assert progress == sorted(progress)
    assert events[-1].data == shared.video(video)


def test_what_was_seen_is_not_told_again(shared: Local) -> None:
    video = shared.create()["id"]
    shared.ended(video)
    address = f"/v1/videos/{video}/events"
    (only,) = all_of(shared.client.get(address))
    assert only.data["status"] == "completed"
    assert only.number is not None

    def after(number: int) -> list[Event]:
        return all_of(shared.client.get(address, headers={"Last-Event-ID": str(number)}))

    assert after(only.number) == []
    assert after(only.number - 1) == [only]


def test_previews_come_where_they_were_asked_for(shared: Local) -> None:
    for wanted in (True, False):
        video = shared.create(preview=wanted)["id"]
        with shared.client.stream("GET", f"/v1/videos/{video}/events") as answer:
            previews = [event for event in all_of(answer) if event.kind == "preview"]
        assert bool(previews) is wanted
        for event in previews:
            assert event.number is None
            assert event.data["id"] == video
            assert event.data["step"] >= 1
            assert event.data["image"].startswith("data:image/webp;base64,")


def test_a_video_that_is_deleted_meanwhile_says_so_and_ends(shared: Local) -> None:
    video = shared.create(SLOW)["id"]
    with shared.client.stream("GET", f"/v1/videos/{video}/events") as answer:
        events = read(answer.iter_lines())
        assert next(events).kind == "video"
        wait_for(lambda: shared.video(video)["status"] == "in_progress")
        shared.client.delete(f"/v1/videos/{video}")
        last = list(events)[-1]
    assert (last.kind, last.data) == ("deleted", {"id": video})
    error_of(shared.client.get(f"/v1/videos/{video}/events"), 404, "video_not_found")


def test_a_cancelled_video_ends_as_failed(shared: Local) -> None:
    video = shared.create(SLOW)["id"]
    with shared.client.stream("GET", f"/v1/videos/{video}/events") as answer:
        events = read(answer.iter_lines())
        next(events)
        shared.client.post(f"/v1/videos/{video}/cancel")
        last = list(events)[-1]
    assert last.data["status"] == "failed"
    assert last.data["error"]["code"] == "cancelled"


def test_all_events_tell_of_the_engine_first_and_of_every_video(shared: Local) -> None:
    with shared.client.stream("GET", "/v1/events") as answer:
        events = read(answer.iter_lines())
        first = next(events)
        assert first.kind == "engine"
        assert first.data["object"] == "engine"
        assert first.data["status"] == "ready"
        video = shared.create("steps 20")["id"]
        heard = []
        for event in events:
            if event.kind == "video" and event.data["id"] == video:
                heard.append(event)
                if event.data["completed_at"]:
                    break
        assert heard[-1].data["status"] == "completed"
        shared.client.delete(f"/v1/videos/{video}")
        for event in events:
            if event.kind == "deleted":
                assert event.data == {"id": video}
                break


def test_the_engine_is_told_of_as_it_changes(shared: Local) -> None:
    with shared.client.stream("GET", "/v1/events") as answer:
        events = (event for event in read(answer.iter_lines()) if event.kind == "engine")
        next(events)
        video = shared.create(SLOW)["id"]
        for event in events:
            if event.data["workers"][0]["video_id"] == video:
                break
        assert event.data["workers"][0]["state"] == "busy"
        shared.client.delete(f"/v1/videos/{video}")
        for event in events:
            if event.data["workers"][0]["state"] == "ready":
                break
    plain = shared.client.get("/v1/engine").json()
    assert set(plain) == set(event.data)
    assert plain["auth"] == "keys"


def test_streams_end_when_their_key_is_revoked(
    shared: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a video of which there is nothing new: here it waits behind another."""
    monkeypatch.setattr(event_module, "QUIET_SECONDS", 3600.0)
    key, secret = shared.service.keys.add("for a while")
    headers = {"Authorization": f"Bearer {secret}"}
    before = shared.create(SLOW)["id"]
    wait_for(lambda: shared.video(before)["status"] == "in_progress")
    video = shared.client.post("/v1/videos", json=small(), headers=headers).json()["id"]
    with (
        shared.client.stream("GET", "/v1/events", headers=headers) as of_all,
        shared.client.stream("GET", f"/v1/videos/{video}/events", headers=headers) as of_one,
    ):
        all_events, events = read(of_all.iter_lines()), read(of_one.iter_lines())
        assert next(all_events).kind == "engine"
        assert next(events).data["status"] == "queued"
        shared.service.keys.revoke(key.id)
        assert {event.kind for event in all_events} <= {"engine"}
        assert list(events) == []
    for each in (video, before):
        job = shared.service.store.find(each)
        assert job is not None
        shared.service.cancel(job)


def test_what_another_process_ends_is_told_too(
    shared: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `entracte jobs cancel` does: nothing in the server hears of it."""
    monkeypatch.setattr(event_module, "QUIET_SECONDS", 0.2)
    running, waiting = shared.create(SLOW)["id"], shared.create()["id"]
    with shared.client.stream("GET", f"/v1/videos/{waiting}/events") as answer:
        events = read(answer.iter_lines())
        assert next(events).data["status"] == "queued"
        job = shared.service.store.find(waiting)
        assert job is not None
        shared.service.store.cancel(job)
        assert list(events)[-1].data["error"]["code"] == "cancelled"
    with shared.client.stream("GET", "/v1/events") as answer:
        engines = (event for event in read(answer.iter_lines()) if event.kind == "engine")
        wait_for(lambda: next(engines).data["queue"]["queued"] == 0)
    shared.client.post(f"/v1/videos/{running}/cancel")
