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
def service(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    running = Command(demo_model, tmp_path_factory.mktemp("page") / "data")
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
