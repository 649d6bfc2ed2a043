"""`entracte serve` in a process of its own with fake runners, for what concerns a whole process."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entracte.serve.logs import process_log
from entracte.serve.server import bind, run
from entracte.serve.service import Service

from .fake_runner import OpenFake
from .running import LTX_2_3, PATIENCE, settings_for


@dataclass(frozen=True)
class Process:
    port: int
    key: str
    folder: Path
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.folder.with_suffix(".log").read_text()


@contextmanager
def fake_server(folder: Path, files: int | None = None, **settings: Any) -> Iterator[Process]:
    """Serve until the block ends. files: how many the process may have open."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files // 2, files))

    with folder.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.fake_server", str(folder), json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=limit,
        )
    assert process.stdout is not None
    with process, process.stdout:
        try:
            port, key = process.stdout.readline().split()
            yield Process(int(port), key, folder, process)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def main() -> None:
    settings = settings_for(Path(sys.argv[1]), **({"port": 0} | json.loads(sys.argv[2])))
    with process_log("json") as (log, _), bind(settings) as listener:
        runner_of = None if settings.workers == "elsewhere" else lambda _: OpenFake()
        service = Service(settings, LTX_2_3, runner_of, log)
        _, key = service.keys.add(f"of process {os.getpid()}")
        port = listener.getsockname()[1]
        run(service, listener, lambda: print(port, key, flush=True))


if __name__ == "__main__":
    main()
