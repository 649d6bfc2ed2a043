"""The page in light and dark, on a phone, with a screen reader, and without a mouse."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.running import wait_for

from .conftest import Fakes
from .visit import Visit

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

Open = Callable[..., Visit]

HAS_GROUND = "ground => getComputedStyle(document.body).backgroundColor === ground"
GROUNDS = {"light": "rgb(238, 241, 244)", "dark": "rgb(13, 15, 18)"}

WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


def require_no_violations(seen: Visit) -> None:
    """None that axe finds serious or critical, in light and in dark."""
    for scheme, ground in GROUNDS.items():
        seen.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        seen.wait_until(HAS_GROUND, ground)
        found: list[dict[str, Any]] = axe.Axe().run(seen.page).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        said = [f"{each['id']}: {node['html']}" for each in grave for node in each["nodes"]]
        assert said == [], scheme


@pytest.fixture(scope="module", autouse=True)
def some_videos(service: Fakes) -> Iterator[None]:
    """One of every kind: made, cancelled, and in the making as long as it is looked at."""
    small = {"size": "128x128", "num_frames": 9, "num_inference_steps": 2}
    with service.client() as client:
        made = client.post("/v1/videos", json=small | {"prompt": "A street that is there"}).json()
        wait_for(lambda: client.get(f"/v1/videos/{made['id']}").json()["status"] == "completed")
        service.hold()
        held = small | {"prompt": "A long street"}
        running, last = (client.post("/v1/videos", json=held).json() for _ in range(2))
        client.post(f"/v1/videos/{last['id']}/cancel")
        yield
        client.post(f"/v1/videos/{running['id']}/cancel")
        service.release()


@pytest.mark.slow
def test_nothing_stands_in_the_way_of_anybody(visit: Open) -> None:
    seen = visit(reduced_motion="reduce")
    seen.wait("#jobs .job.running")
    seen.wait(".card video")
    seen.wait(".card.cancelled")
    seen.wait(".legend")
    seen.page.click("#advanced > summary")
    seen.page.locator(".card .details summary").first.click()
    seen.drop("harbour.png", "navy")
    seen.expect("status of 400")
    seen.page.fill("[name=num_inference_steps]", "101")
    seen.wait("#num_inference_steps-error")
    require_no_violations(seen)


@pytest.mark.slow
def test_nor_at_the_door(visit: Open) -> None:
    seen = visit(signed_in=False, reduced_motion="reduce")
    seen.wait("#sign-in-title")
    seen.page.keyboard.press("Enter")
    seen.wait("#key-error")
    require_no_violations(seen)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_shows_all_of_it(visit: Open, width: int) -> None:
    size = {"width": width, "height": 800}
    seen = visit(viewport=size, has_touch=True, is_mobile=True, color_scheme="dark")
    seen.wait(".card video")
    seen.drop("harbour.png", "navy")
    seen.page.tap("#advanced > summary")
    seen.page.select_option("#size", "custom")
    full, shown = seen.page.evaluate(WIDTHS)
    assert full <= shown
    for button in seen.page.locator("button:visible, summary:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44, button.inner_text()


def test_the_keyboard_is_enough(visit: Open) -> None:
    seen = visit()
    page = seen.page
    seen.wait("#work")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    seen.wait_until("document.activeElement.id === 'prompt'")
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {"negative_prompt", "image-files", "size", "length", "seed", "create"} <= reached


@pytest.mark.slow
def test_motion_is_stilled_for_those_who_ask(visit: Open) -> None:
    seen = visit(reduced_motion="reduce")
    pill = seen.wait("#engine-status")
    moving = "pill => getComputedStyle(pill, '::before').animationDuration"
    assert pill.evaluate(moving) in ("1e-05s", "0.00001s")
