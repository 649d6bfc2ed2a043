"""The service's documents: their examples run, and their tables match the code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import openai
import pytest
from PIL import Image

from entracte.config.model import ModelSettings
from entracte.config.serve import ServeSettings
from entracte.serve.http.connections import CROWDED_CODE
from entracte.serve.jobs import job
from entracte.serve.webhooks.dispatcher import webhook_secret

from .documented import (
    GUIDES,
    HTTP_API,
    SERVICE,
    SETTINGS,
    code_blocks,
    error_codes,
    field_rows,
    names,
    rows,
)
from .running import PATIENCE, Hooks, Local, local, wait_for

ORIGIN = "https://video.example.com"

# What the documentation says, and where it is here.
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def hooks() -> Iterator[Hooks]:
    taking = Hooks()
    yield taking
    taking.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, hooks: Hooks) -> Iterator[Local]:
    folder = tmp_path_factory.mktemp("documented")
    (folder / "loras").mkdir()
    (folder / "loras" / "style.safetensors").write_bytes(b"")
    more = {"lora_folder": folder / "loras", "cors_origin": (ORIGIN,), **hooks.settings}
    with local(folder / "data", **more) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Local) -> Path:
    """Where examples run, with what they take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENTRACTE_KEY", served.key)
    monkeypatch.setenv("ENTRACTE_DATA_FOLDER", str(served.service.folder.root))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("first.png", "later.png"):
        Image.linear_gradient("L").save(tmp_path / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not (which("jq") and which("curl")), reason="jq or curl is not installed")
def test_the_shell_examples(folder: Path, served: Local) -> None:
    blocks = [block for page in GUIDES for _, block in code_blocks(page.read_text(), "bash")]
    assert len(blocks) == 11
    script = "\n".join(blocks).replace(ADDRESS, served.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert (folder / "lighthouse.mp4").read_bytes()[4:8] == b"ftyp"
    assert (folder / "lighthouse.webp").read_bytes()[8:12] == b"WEBP"
    assert (folder / "lighthouse.jpg").read_bytes()[6:10] == b"JFIF"
    assert (folder / "as-taken-in.png").read_bytes()[1:4] == b"PNG"
    assert '"deleted":true' in said
    assert '"render_size": "1280x768"' in said
    assert '"num_frames": 97' in said
    assert '"crf": 30' in said
    assert '"strength": 0.7' in said
    assert "event: preview" in said
    assert "whsec_" in said
    assert '{"status":"ready"}' in said
    assert 'entracte_videos_total{outcome="completed",reason=""}' in said
    twice = re.findall(r"^(video_\w+)$", said, re.MULTILINE)[-2:]
    assert twice[0] == twice[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_python_examples(
    folder: Path, served: Local, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace: dict[str, Any] = {}
    blocks = [
        (page, *found) for page in GUIDES for found in code_blocks(page.read_text(), "python")
    ]
    assert len(blocks) == 2
    for page, lines_before, block in blocks:
        source = "\n" * lines_before + block.replace(ADDRESS, served.url)
        exec(compile(source, page, "exec"), namespace)
    assert (folder / "lighthouse.mp4").stat().st_size > 0
    video = served.ended(served.create()["id"])
    wait_for(lambda: video["id"] in hooks.told())
    headers, body = next(each for each in hooks.taken if video["id"].encode() in each[1])
    monkeypatch.setenv("WEBHOOK_SECRET", webhook_secret(served.service.folder))
    namespace["on_webhook"](body, headers)
    assert (folder / "told.mp4").stat().st_size == video["bytes"]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        namespace["on_webhook"](body + b" ", headers)


@pytest.mark.slow
@pytest.mark.parametrize("passed_on", ["Host", "nothing"])
def test_behind_the_proxy_that_is_shown(tmp_path: Path, passed_on: str) -> None:
    """As nginx asks with those lines; and without the name, with --cors-origin in its place."""
    text = "".join(page.read_text() for page in GUIDES)
    assert "`--trusted-proxy 127.0.0.1`" in text
    for line in ("Host $host;", "X-Forwarded-Proto $scheme;"):
        assert f"proxy_set_header {line}" in text
    origin = "https://public.example.com" if passed_on == "Host" else ORIGIN
    headers = {"Origin": origin, "X-Forwarded-Proto": "https"}
    if passed_on == "Host":
        headers["Host"] = "public.example.com"
    network = {"trusted_proxy": ("127.0.0.1",), "cors_origin": (ORIGIN,)}
    with local(tmp_path / "data", ready=False, **network) as running:
        told = {"key": running.key}
        answer = running.client.post("/session", json=told, headers=headers)
        assert answer.status_code == 204
        assert "Secure" in answer.headers["set-cookie"]
        other = headers | {"Origin": "https://elsewhere.example.com"}
        assert running.client.post("/session", json=told, headers=other).status_code == 403


def test_all_error_codes_are_listed() -> None:
    text = HTTP_API.read_text()
    answers = {code for row in rows(text, "status") for code in names(row[1])}
    failures = {code for row in rows(text, "code") for code in names(row[0])}
    # Those that the source puts together, or has as constants.
    made = {f"video_{status}" for status in ("queued", "in_progress", "failed")}
    made |= {job.CANCELLED, job.WORKER_LOST, CROWDED_CODE}
    assert answers | failures == error_codes() | made


def test_all_fields_are_listed_as_they_are_declared() -> None:
    expected = field_rows()
    table = "\n".join(f"| {' | '.join(row)} |" for row in expected)
    assert rows(HTTP_API.read_text(), "field") == expected, f"the table should be\n{table}"


def test_all_metrics_are_listed(served: Local) -> None:
    listed = {name for row in rows(SERVICE.read_text(), "metric") for name in names(row[0])}
    shown = served.client.get("/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", shown, re.MULTILINE))
    there = {name for name, kind in kinds.items() if not name.endswith("_created")}
    assert {name.partition("{")[0] for name in listed} == there
    for name in listed:
        bare, _, labels = name.rstrip("}").partition("{")
        for sample in re.findall(rf"^{bare}(?:_count)?{{(.*)}}", shown, re.MULTILINE):
            assert set(re.findall(r"(\w+)=", sample)) == set(re.findall(r"\w+", labels)), name


def test_all_settings_of_the_service_are_listed() -> None:
    given: dict[str, str] = {}
    for row in rows(SETTINGS.read_text(), "key"):
        defaults = row[1].split(", ")
        of = names(row[0])
        # Several keys of a row have a default each, or share one.
        given |= dict(
            zip(of, defaults if len(defaults) == len(of) else defaults * len(of), strict=True)
        )
    ours = ServeSettings.model_fields.keys() - ModelSettings.model_fields.keys()
    assert given.keys() == ours
    special = {"data_folder": "the user's data folder", "devices": "`device`"}
    settings = ServeSettings()
    for name, default in given.items():
        value = getattr(settings, name)
        if isinstance(value, tuple):
            value = ", ".join(value) or None
        said = f"{value:g}" if isinstance(value, float) else str(value)
        expected = special.get(name, "none" if value is None else said)
        assert default == (expected.lower() if isinstance(value, bool) else expected), name


def test_the_settings_file_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [(_, shown)] = code_blocks(SETTINGS.read_text(), "toml")
    path = tmp_path / "config.toml"
    path.write_text(shown)
    monkeypatch.setenv("ENTRACTE_CONFIG", str(path))
    monkeypatch.setenv("ENTRACTE_DEVICES", '["cuda:1"]')
    settings = ServeSettings()
    assert (settings.model, settings.port) == ("/srv/models/ltx-2.3", 8080)
    assert (settings.keep_size, settings.devices) == ("500GiB", ("cuda:1",))
    assert settings.webhook_url == ("https://hooks.example.com/entracte",)
