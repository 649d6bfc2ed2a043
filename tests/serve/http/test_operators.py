"""What concerns all keys is for operators; others see what is theirs."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from entracte.serve.jobs.database import open_database
from entracte.serve.keys import KeyStore

from ..running import PATIENCE, Local, local, small, wait_for
from .asking import error_of


@pytest.fixture
def stranger(shared: Local) -> Iterator[httpx2.Client]:
    """Whoever has a key that is no operator's."""
    _, secret = shared.service.keys.add(f"stranger {secrets.token_hex(8)}")
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=shared.url, headers=headers, timeout=PATIENCE) as client:
        yield client


def test_the_first_key_is_an_operators_and_others_where_that_is_said(tmp_path: Path) -> None:
    database = open_database(tmp_path / "test.db")
    keys = KeyStore(database)
    added = [
        keys.add(name, operator=operator)[0]
        for name, operator in (
            ("first", None),
            ("second", None),
            ("third", True),
            ("fourth", False),
        )
    ]
    assert [key.operator for key in added] == [True, False, True, False]
    assert keys.list() == added
    database.dispose()


def test_metrics_are_for_operators(shared: Local, stranger: httpx2.Client) -> None:
    assert shared.client.get("/metrics").status_code == 200
    error = error_of(stranger.get("/metrics"), 403, "operator_only")
    assert "--operator" in error["message"]
    assert "entracte_" not in stranger.get("/metrics").text


def test_the_engine_of_others_is_not_told(shared: Local, stranger: httpx2.Client) -> None:
    running, waiting = (shared.create("steps 3000")["id"] for _ in range(2))
    wait_for(lambda: shared.video(running)["status"] == "in_progress")
    mine = stranger.post("/v1/videos", json=small()).json()
    wait_for(lambda: shared.client.get("/v1/engine").json()["queue"]["queued"] == 2)
    whole, part = shared.client.get("/v1/engine").json(), stranger.get("/v1/engine").json()
    assert (whole["queue"]["queued"], whole["queue"]["running"]) == (2, 1)
    assert (part["queue"]["queued"], part["queue"]["running"]) == (1, 0)
    assert mine["queue_position"] == 2
    (worker,), (of_all,) = part["workers"], whole["workers"]
    assert of_all["memory"]
    assert of_all["host_used_bytes"] == 300
    assert worker["state"] == "busy"
    hidden = ("video_id", "stage", "mode", "plan", "host_used_bytes", "device_used_bytes")
    assert not worker["memory"]
    assert all(worker[name] is None for name in hidden)
    with stranger.stream("GET", "/v1/events") as events:
        told = next(line for line in events.iter_lines() if line.startswith("data: "))
    assert running not in told
    assert '"memory":[]' in told
    for video in (running, waiting):
        shared.client.delete(f"/v1/videos/{video}")


def test_without_keys_everybody_is_an_operator(tmp_path: Path) -> None:
    with local(tmp_path / "data", ready=False, auth="off") as running:
        assert httpx2.get(f"{running.url}/metrics").status_code == 200
