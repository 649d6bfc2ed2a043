"""The real clients of OpenAI, two versions of them, against a server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entracte.serve.webhooks.dispatcher import webhook_secret

from .fake_runner import OpenFake
from .running import PATIENCE, Hooks, local, wait_for

PROGRAM = "tests.serve.openai_client"
ROOT = Path(__file__).parents[2]
OLDER = Path(sys.prefix) / "openai-2.30.0"


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("version", ["2.30.0", "3.54.0"])
def test_everything_that_the_client_does(tmp_path: Path, version: str) -> None:
    path = os.pathsep.join(sys.path)
    if version == "2.30.0":
        if not OLDER.is_dir():
            pytest.skip(f"openai 2.30.0 is not in {OLDER}; `make test` puts it there")
        path = f"{OLDER}{os.pathsep}{path}"
    hooks = Hooks()
    runner = OpenFake(step_s=0.05, estimate_s=1.0)
    with local(tmp_path / "data", runner, max_queued=2, **hooks.settings) as running:
        for _ in range(2):
            running.ended(running.create()["id"])
        wait_for(lambda: len(hooks.taken) == 2)
        messages = [(headers, body.decode()) for headers, body in hooks.taken]
        (tmp_path / "hooks.json").write_text(json.dumps(messages))
        secret = webhook_secret(running.service.folder)
        arguments = [running.url, running.key, secret, str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-m", PROGRAM, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        )
    hooks.close()
    assert done.stderr == ""
    assert done.stdout.strip() == version
