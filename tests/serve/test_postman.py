"""Webhooks reach those who listen, whoever else does not."""

import socket
from pathlib import Path

from .running import Hooks, local, wait_for


def test_a_host_that_never_answers_keeps_nobody_waiting(tmp_path: Path) -> None:
    hooks = Hooks()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = f"http://127.0.0.1:{silent.getsockname()[1]}/hook"
        settings = hooks.settings | {"webhook_url": (deaf, hooks.url)}
        with local(tmp_path / "data", **settings) as running:
            videos = {running.create()["id"] for _ in range(3)}
            wait_for(lambda: hooks.told().keys() == videos, 15)
    hooks.close()
