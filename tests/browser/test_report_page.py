from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from entracte.report.page import report_page
from entracte.report.residency_map import residency_map
from entracte.trace.dump import Dump
from tests.trace.sample_dump import plain, resident, snapshot_low_vram

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DATA = {"low-vram": snapshot_low_vram(), "h200": resident(), "other": plain()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    dumps = [(label, Dump.model_validate(data)) for label, data in DATA.items()]
    path.write_text(report_page(dumps), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: "Browser", file: Path) -> "Iterator[Page]":
    """The page; afterwards, that it asked for nothing and complained of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert [url for url in asked if url != "data:,"] == [file.as_uri()]
    assert complaints == []


def shade(page: "Page", selector: str, what: str) -> float:
    """How light a colour of an element is, from 0 to 255."""
    css = page.locator(selector).first.evaluate(f"e => getComputedStyle(e)['{what}']")
    red, green, blue = (int(v) for v in css[css.index("(") + 1 : -1].split(",")[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue


def box(page: "Page", selector: str) -> Any:
    found = page.locator(selector).first.bounding_box()
    assert found is not None
    return found


def test_the_map_and_all_stages_are_there(opened: "Page") -> None:
    size = box(opened, "#run-0-map")
    assert size["width"] > 900
    assert size["height"] > 600
    swap = box(opened, '#run-0-map path[data-state="in flight"] >> nth=1')
    assert swap["width"] > 500
    assert swap["height"] > 300
    words = opened.locator("#time table").inner_text()
    for data in DATA.values():
        for stage in data["steps"]:
            assert stage["name"] in words
    assert "another engine" in opened.locator("#run-2").inner_text()


def test_it_is_read_by_those_who_do_not_see_it(opened: "Page") -> None:
    named = opened.get_by_role("img", name="Residency map of low-vram")
    assert named.count() == 1
    assert opened.get_by_role("heading", level=1).count() == 1
    assert opened.get_by_role("table").count() >= 3
    assert opened.get_by_role("columnheader", name="stall").count() == len(DATA)
    assert opened.get_by_role("rowheader", name="denoise", exact=True).count() == 1


def test_light_and_dark(opened: "Page") -> None:
    opened.emulate_media(color_scheme="light")
    assert shade(opened, "section", "background-color") > 240
    assert shade(opened, "#bars .strong", "fill") < 60
    opened.emulate_media(color_scheme="dark")
    assert shade(opened, "section", "background-color") < 40
    assert shade(opened, "#bars .strong", "fill") > 200
    assert shade(opened, "h1", "color") > 200


def test_on_paper_it_is_light_and_fits(opened: "Page", tmp_path: Path) -> None:
    opened.emulate_media(color_scheme="dark", media="print")
    assert shade(opened, "body", "background-color") > 240
    assert shade(opened, "#bars .strong", "fill") < 60
    assert not opened.locator("nav").is_visible()
    # A4 across, less its margins, in CSS pixels: nothing is higher, so nothing is cut in two.
    opened.set_viewport_size({"width": 1032, "height": 703})
    assert box(opened, "#run-0-map")["height"] < 520
    printed = tmp_path / "report.pdf"
    opened.pdf(path=printed, prefer_css_page_size=True)
    assert printed.stat().st_size > 10_000


def test_on_a_telephone_only_charts_scroll(opened: "Page") -> None:
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    chart = opened.locator(".scroll").first
    assert chart.evaluate("e => e.scrollWidth > e.clientWidth")
    assert box(opened, "#run-0-map")["width"] >= 700


def test_the_map_alone_is_a_picture(browser: "Browser", tmp_path: Path) -> None:
    dump = Dump.model_validate(DATA["low-vram"])
    assert dump.recording is not None
    svg = residency_map(dump.recording, dump.total_duration_ms, "map", "a map", alone=True)
    assert svg is not None
    path = tmp_path / "map.svg"
    path.write_text(svg, encoding="utf-8")
    context = browser.new_context(viewport={"width": 1200, "height": 1000}, color_scheme="dark")
    page = context.new_page()
    page.goto(path.as_uri())
    assert shade(page, "rect.paper", "fill") < 40
    assert shade(page, "text.title", "fill") > 200
    assert box(page, 'path[data-state="merged"]')["height"] > 200
    context.close()
