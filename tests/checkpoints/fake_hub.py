"""A hub on this machine: folders as repositories, as much of its protocol as is used."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """repositories: folders by name. failure: status and error code of every answer, if any.

    gated: repositories whose files may not be had. asked: paths of all requests. silent: set to
    have no request answered until it is cleared.
    """

    repositories: dict[str, Path]
    failure: tuple[int, str] | None = None
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    answering: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.asked.append(path)
        self.answering.wait()
        if self.failure is not None:
            return self.failure[0], {"X-Error-Code": self.failure[1]}, b"{}"
        for name, folder in self.repositories.items():
            files = {
                file.relative_to(folder).as_posix(): file.read_bytes()
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            if path.startswith(f"/api/models/{name}/tree/"):
                return 200, {}, json.dumps([_entry(*each) for each in files.items()]).encode()
            if path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file} for file in files]
                info = {"id": name, "sha": COMMIT, "private": False, "siblings": siblings}
                return 200, {"X-Repo-Commit": COMMIT}, json.dumps(info).encode()
            file = path.removeprefix(f"/{name}/resolve/").partition("/")[2]
            if path.startswith(f"/{name}/resolve/") and file in files:
                if name in self.gated:
                    return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
                etag = f'"{_oid(files[file])}"'
                return 200, {"X-Repo-Commit": COMMIT, "ETag": etag}, files[file]
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "oid": _oid(data), "size": len(data), "path": name}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(unquote(urlparse(self.path).path))
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 the name is http.server's

        def log_message(self, *_: object) -> None:
            pass

    hub.answering.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            hub.answering.set()
            server.shutdown()
            thread.join()


def use(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch, offline: bool = False) -> None:
    """Have huggingface_hub, whose settings are read when it is imported, use a hub and a cache."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # Of which agents there are huggingface_hub else asks the hub, once a day and machine.
    agents = cache.with_name(f"{cache.name}-agents.json")
    agents.write_text(json.dumps({"standardEnvVars": [], "harnesses": {}}))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(agents))
