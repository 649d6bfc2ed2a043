"""A running service: in this process with fake runners, or as the command with the real engine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from entracte.checkpoints.model_header import ModelHeader
from entracte.config.serve import ServeSettings
from entracte.serve.logs import open_log
from entracte.serve.server import bind, server_config
from entracte.serve.service import Service

from .fake_runner import OpenFake


def settings_for(folder: Path, **more: Any) -> ServeSettings:
    given = {"data_folder": folder, "max_running_per_key": None, "nice": 0} | more
    return ServeSettings(**given)


# What a service with fake runners claims to serve.
LTX_2_3 = ModelHeader("2.3", layers=48)

# How long a test waits for what must come: beside a full load, on any machine.
PATIENCE = 600.0


def wait_for(what: Callable[[], Any]) -> Any:
    """Until it is true; what it then is."""
    deadline = time.monotonic() + PATIENCE
    pause = 0.01
    while not (found := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s")
        time.sleep(pause)
        pause = min(0.05, 1.2 * pause)  # what takes long is asked for less often
    return found


@dataclass
class Local:
    """A service in this process, and a client of it."""

    service: Service
    url: str
    key: str
    client: httpx2.Client
    log: StringIO

    def create(self, prompt: str = "A street", **fields: Any) -> dict[str, Any]:
        response = self.client.post("/v1/videos", json=small(prompt, **fields))
        assert response.status_code == 200, response.text
        video: dict[str, Any] = response.json()
        return video

    def video(self, video_id: str) -> dict[str, Any]:
        response = self.client.get(f"/v1/videos/{video_id}")
        assert response.status_code == 200, response.text
        video: dict[str, Any] = response.json()
        return video

    def ended(self, video_id: str) -> dict[str, Any]:
        video: dict[str, Any] = wait_for(
            lambda: v if (v := self.video(video_id))["completed_at"] else None
        )
        return video


def small(prompt: str = "A street", **fields: Any) -> dict[str, Any]:
    """The fields of a small video."""
    return {"prompt": prompt, "size": "64x64", "num_frames": 9, "num_inference_steps": 2} | fields


@contextmanager
def local(
    folder: Path, runner: OpenFake | None = None, ready: bool = True, **settings: Any
) -> Iterator[Local]:
    """Serve on this machine until the block ends, on a free port if none is given."""
    log = StringIO()
    service = Service(
        settings_for(folder, **({"port": 0} | settings)),
        LTX_2_3,
        None if settings.get("workers") == "elsewhere" else lambda _: runner or OpenFake(),
        open_log("json", log),
    )
    _, key = service.keys.add(f"test {time.time_ns()}")
    listener = bind(service.settings)
    server = uvicorn.Server(server_config(service))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    service.start()
    try:
        thread.start()
        wait_for(lambda: server.started)
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {key}"}
        given = {"base_url": url, "headers": headers, "timeout": PATIENCE}
        with httpx2.Client(**given, verify=False) as client:  # reading certificates takes long
            if ready:
                wait_for(lambda: service.ready)
            yield Local(service, url, key, client, log)
    finally:
        service.events.close()
        server.should_exit = True
        thread.join(10)
        service.stop()
        listener.close()


class Hooks:
    """Takes webhooks on this machine. taken: `(headers, body)` of each."""

    def __init__(self, status: int = 200) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hooks.taken.append((dict(self.headers), body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    @property
    def settings(self) -> dict[str, Any]:
        """Of a service that tells of every video here."""
        networks = ("127.0.0.0/8",)
        return {"webhook_url": (self.url,), "allow_http": True, "allow_network": networks}

    def told(self) -> dict[str, set[str]]:
        """The messages by the video that they are about."""
        found: dict[str, set[str]] = {}
        for _, body in self.taken:
            event = json.loads(body)
            found.setdefault(event["data"]["id"], set()).add(event["id"])
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Command:
    """`entracte serve` with a model, as an operator runs it; `stop` it in the end."""

    def __init__(self, model: Path, folder: Path, *flags: str) -> None:
        self._arguments = [sys.executable, "-m", "entracte", "serve", "--model", str(model)]
        self._arguments += ["--data-folder", str(folder), "--json", "--log-format", "json"]
        # Whatever else the machine does, a worker may have its share of it.
        self._arguments += ["--nice", "0", *flags]
        self._log = folder.with_suffix(".log")
        self.port = 0
        self.key = ""
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Until it is ready, at the port that it had before."""
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*self._arguments, "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline() or "{}")
        assert "address" in said, (said, self.log)
        self.port = int(said["address"].rstrip("/").rpartition(":")[2])
        self.key = said["key"] or self.key
        wait_for(self._ready)

    def stop(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Report it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def restart(self) -> None:
        self.stop()
        self.start()

    def client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log
        request = urllib.request.Request(
            f"{self.url}/health", headers={"Authorization": f"Bearer {self.key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False
