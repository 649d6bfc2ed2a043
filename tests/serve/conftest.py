"""Services that tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import Command, Local, local


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """With fake runners. Tests leave its settings alone, and end what they begin."""
    with local(tmp_path_factory.mktemp("service") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def command(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command with the demonstration model. It may be restarted, not broken."""
    running = Command(demo_model, tmp_path_factory.mktemp("command") / "data")
    yield running
    assert running.stop() == 0
