"""The log: one line an event, whoever writes it."""

import contextlib
import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from PIL import Image

from entracte.serve.logs import KINDS, THIN_SECONDS, Thin, ToLog, open_log

from .fake_server import fake_server
from .http.asking import PROMPT, encoded
from .running import PATIENCE, small, wait_for


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_of_a_kind_come_once_in_so_many_seconds() -> None:
    now = 0.0
    thin = Thin(lambda: now)
    said = []
    for now in (0.0, 1.0, 2.0, THIN_SECONDS, THIN_SECONDS + 1, 3 * THIN_SECONDS):
        with contextlib.suppress(structlog.DropEvent):
            said.append((now, thin(None, "", {"event": "x", "thin": "a"})))
        assert thin(None, "", {"event": "y"}) == {"event": "y"}
    assert said == [
        (0.0, {"event": "x"}),
        (THIN_SECONDS, {"event": "x", "left_out": 2}),
        (3 * THIN_SECONDS, {"event": "x", "left_out": 1}),
    ]


def test_kinds_are_not_remembered_without_end() -> None:
    thin = Thin(lambda: 0.0)
    for number in range(3 * KINDS):
        thin(None, "", {"thin": number})
    assert len(thin._told) == KINDS


def test_what_libraries_log_is_thinned_by_its_words_and_its_error() -> None:
    stream = io.StringIO()
    logger = logging.Logger("library")
    logger.addHandler(ToLog(open_log("json", stream)))

    def fail(kind: type[Exception]) -> None:
        try:
            raise kind(PROMPT)
        except Exception:
            logger.exception("it failed")

    for _ in range(50):
        logger.warning("%s of many", 1)
        logger.warning("another")
        fail(ValueError)
        fail(KeyError)
    found = events(stream.getvalue())
    assert [each["event"] for each in found] == ["1 of many", "another", "it failed", "it failed"]
    assert [each["error_type"] for each in found[2:]] == ["ValueError", "KeyError"]
    assert "test_logs.py" in found[2]["raised_at"][-1]
    assert PROMPT not in stream.getvalue()


NOISY = """
import ctypes, logging, os, subprocess, sys, threading, warnings
from entracte.serve.logs import process_log

with process_log("json") as (log, stream):
    log.info("ours")
    logging.getLogger("python_multipart").warning("of a library")
    warnings.warn("beware")
    os.write(2, b"Fax4Decode: bad line 1\\n" + b"Fax4Decode: bad line 2\\n" * 500)
    subprocess.run([sys.executable, "-c", "import sys; sys.exit('of a worker')"])
    thread = threading.Thread(target=lambda: 1 / 0, name="postman")
    thread.start()
    thread.join()
    print("plain", file=stream)
    {last}
"""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("last", "code", "after"),
    [
        ("", 0, ""),
        ("raise RuntimeError('of main')", 1, ""),
        ("from entracte.errors import RequestError; raise RequestError('x')", 1, "RequestError: x"),
    ],
)
def test_everything_of_a_process_is_in_its_log(last: str, code: int, after: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", NOISY.format(last=last)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == code, ended.stderr
    text, _, rest = ended.stderr.partition("Traceback")
    assert after in rest
    lines = text.splitlines()
    lines.remove("plain")
    found = [json.loads(line) for line in lines]
    texts = [each.get("text") for each in found]
    assert texts.count("Fax4Decode: bad line 1") == 1
    assert "of a worker" in texts
    words = [each["event"] for each in found]
    assert words[0] == "ours"
    assert "of a library" in words
    assert any("beware" in each for each in words)
    uncaught = [each["where"] for each in found if each["event"] == "an uncaught error"]
    assert uncaught == ["postman", "main"][: 1 + ("RuntimeError" in last)]


@pytest.mark.slow
def test_the_log_of_a_server_is_json_whatever_is_sent(tmp_path: Path) -> None:
    fax = encoded(Image.new("1", (64, 64)), "TIFF", compression="group4")
    damaged = fax[:20] + b"\xff" * 12 + fax[32:]
    with fake_server(tmp_path / "data") as server:
        headers = {"Authorization": f"Bearer {server.key}"}
        with httpx2.Client(base_url=server.url, headers=headers, timeout=PATIENCE) as client:
            wait_for(lambda: client.get("/health").status_code == 200)
            files = {"input_reference": ("a.tiff", damaged, "image/tiff")}
            client.post("/v1/videos", data={"prompt": PROMPT}, files=files)
            kind = {"content-type": "multipart/form-data; boundary=b"}
            client.post("/v1/videos", content=b"--b\r\nx--c--\r\n", headers=kind)
            for prompt in ("raise", "crash", f"{PROMPT}"):
                video = client.post("/v1/videos", json=small(prompt)).json()["id"]
                wait_for(lambda v=video: client.get(f"/v1/videos/{v}").json()["completed_at"])
        process = server.process
    assert process.returncode == 0
    found = events(server.log)
    assert {"worker started", "worker died", "video ended"} <= {each["event"] for each in found}
    assert PROMPT not in server.log
    assert server.key not in server.log
