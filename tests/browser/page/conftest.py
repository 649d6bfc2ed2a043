"""Services, and visits to their page."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from tests.serve.fake_runner import OpenFake
from tests.serve.running import PATIENCE, Command, local

from .visit import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser


class Fakes:
    """A service with fake runners, at the same address after a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._hold = folder, folder / "hold"
        self.url = ""
        self.start()

    def start(self) -> None:
        """Until it is ready."""
        self._stack = ExitStack()
        port = int(self.url.rpartition(":")[2] or 0)
        runner = OpenFake(hold=self._hold)
        running = self._stack.enter_context(local(self._folder / "data", runner, port=port))
        self.url, self.key = running.url, running.key

    def stop(self) -> None:
        self._stack.close()

    def client(self) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE)

    def hold(self) -> None:
        """Begin videos from now on, and end none until they are released."""
        self._hold.touch()

    def release(self) -> None:
        self._hold.unlink()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    """What the page asks. Modules that need the engine's answers have `engine` in its place."""
    running = Fakes(tmp_path_factory.mktemp("page"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def lora(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only LoRA of `engine`, one tensor of which is of no layer."""
    import torch
    from safetensors.torch import load_file, save_file

    from entracte.synthetic.demo import DISTILLED_LORA

    path = tmp_path_factory.mktemp("loras") / "My Style.safetensors"
    tensors = load_file(demo_model / DISTILLED_LORA)
    save_file(tensors | {"other.lora_A.weight": torch.ones(2, 2)}, path)
    return path


@pytest.fixture(scope="session")
def engine(
    demo_model: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    """The command with the demonstration model."""
    data = tmp_path_factory.mktemp("engine") / "data"
    running = Command(demo_model, data, "--lora-folder", str(lora.parent))
    yield running
    running.stop()


@pytest.fixture
def visit(browser: "Browser", service: Fakes | Command) -> Iterator[Callable[..., Visit]]:
    """Opens the page, signed in; at the end, that every visit was without complaint."""
    visits: list[Visit] = []

    def open_page(signed_in: bool = True, **context: Any) -> Visit:
        given = {"viewport": {"width": 1440, "height": 900}} | context
        found = Visit(browser.new_context(**given), service.url)
        visits.append(found)
        found.page.goto(f"{service.url}/#key={service.key}" if signed_in else service.url)
        return found

    yield open_page
    for each in visits:
        each.close()
    for each in visits:
        assert each.elsewhere == [], "the page asked another origin"
        assert each.complaints == []
