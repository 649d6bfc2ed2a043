"""A service with the demonstration model, and visits to its page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.serve.running import Command

from .visit import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def lora(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only LoRA of the service, one tensor of which is of no layer."""
    import torch
    from safetensors.torch import load_file, save_file

    from entracte.synthetic.demo import DISTILLED_LORA

    path = tmp_path_factory.mktemp("loras") / "My Style.safetensors"
    tensors = load_file(demo_model / DISTILLED_LORA)
    save_file(tensors | {"other.lora_A.weight": torch.ones(2, 2)}, path)
    return path


@pytest.fixture(scope="session")
def service(
    demo_model: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Command]:
    data = tmp_path_factory.mktemp("page") / "data"
    running = Command(demo_model, data, "--lora-folder", str(lora.parent))
    yield running
    running.stop()


@pytest.fixture
def visit(browser: "Browser", service: Command) -> Iterator[Callable[..., Visit]]:
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
