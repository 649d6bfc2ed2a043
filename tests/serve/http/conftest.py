"""Services to be attacked, and what none of that may do to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from entracte.serve.http.page import FOLDER

from ..running import Local, local
from .asking import PROMPT

BODY_BYTES = 256 * 1024
IMAGE_BYTES = 128 * 1024
IMAGE_PIXELS = 100_000


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A service with low limits."""
    limits = {
        "max_body_bytes": BODY_BYTES,
        "max_image_bytes": IMAGE_BYTES,
        "max_image_pixels": IMAGE_PIXELS,
        "max_images": 2,
    }
    with local(tmp_path_factory.mktemp("narrow") / "data", **limits) as running:
        yield running


@pytest.fixture
def attacked(shared: Local) -> Iterator[Local]:
    """The shared service, which is as well afterwards as before."""
    yield from unharmed(shared)


@pytest.fixture
def attacked_narrow(narrow: Local) -> Iterator[Local]:
    yield from unharmed(narrow)


def unharmed(running: Local) -> Iterator[Local]:
    """Give a service away, and look it over when it is back."""
    before = _files(running)
    said = len(running.log.getvalue())
    yield running
    assert running.client.get("/health").status_code == 200
    folder = running.service.folder
    assert {each.name for each in folder.videos.iterdir()} <= running.service.store.known()
    assert _files(running) == before
    log = running.log.getvalue()[said:]
    for word in (PROMPT, running.key, str(folder.root), "../", '"status": 5'):
        assert word not in log


def _files(running: Local) -> set[Path]:
    """Everything in the data folder but videos, around it, and where the page is."""
    root = running.service.folder.root
    return {*root.parent.iterdir(), *root.iterdir(), *FOLDER.rglob("*")}
