"""What the page shows of the engine itself."""

from collections.abc import Callable

import pytest

from tests.serve.running import Command

from .journey import follow
from .visit import Visit

Open = Callable[..., Visit]


@pytest.fixture(scope="session")
def service(engine: Command) -> Command:
    return engine


@pytest.mark.slow
def test_a_video_that_the_engine_makes(visit: Open, service: Command) -> None:
    follow(visit(), service)


@pytest.mark.slow
def test_memory_is_told_in_numbers(visit: Open) -> None:
    seen = visit()
    legend = seen.wait(".legend").inner_text()
    for name in ("Transformer", "Text encoder", "Video VAE", "Vocoder", "Everything else"):
        assert name in legend
    bar = seen.page.get_by_role("img", name="Host memory: ")
    assert "Transformer" in (bar.get_attribute("aria-label") or "")
    assert bar.locator("span").count() == len(seen.page.locator(".legend li").all())
