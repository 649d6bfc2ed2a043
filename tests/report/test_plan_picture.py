import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from entracte.planner.candidates import Way
from entracte.planner.prediction import Prediction, StagePrediction
from entracte.report.colours import COMPONENTS, GREY
from entracte.report.plan_layout import ACTIVATIONS, LEAST_WIDTH, stacking
from entracte.report.plan_picture import plan_svg

GB = 10**9
SVG = "{http://www.w3.org/2000/svg}"
LIMIT = 20 * GB


def stage(
    name: str, seconds: float, stall: float, activations: int, **loans: int
) -> StagePrediction:
    weights = {
        "transformer": 12 * GB,
        "text_encoder": 0,
        "video_vae": 0,
        "later & <other>": GB // 3,
    }
    return StagePrediction(name, seconds, stall, weights | loans, activations)


PREDICTION = Prediction(
    Way("fused", "low-vram", 12, 4),
    {"text_encoder": "streamed"},
    (
        stage("encode text", 1.3, 0.9, GB // 7, text_encoder=2 * GB),
        stage("denoise", 48.0, 6.2, 2 * GB),
        stage('upsample <&">', 0.2, 0.0, GB, video_vae=3 * GB),
        stage("decode video", 5.2, 0.0, 6 * GB, video_vae=3 * GB),
    ),
    latency_s=54.7,
    stall_s=6.9,
    switch_s=0.2,
    peak_device_bytes=22 * GB,
    peak_host_bytes=61 * GB,
)


def drawn(prediction: Prediction = PREDICTION, title: str = "a plan") -> ElementTree.Element:
    return ElementTree.fromstring(plan_svg(prediction, LIMIT, title))


def areas(root: ElementTree.Element) -> list[dict[str, str]]:
    return [rect.attrib for rect in root.iter(f"{SVG}rect") if "data-part" in rect.attrib]


def words(root: ElementTree.Element) -> str:
    return " ".join(text.text or "" for text in root.iter(f"{SVG}text"))


def test_every_stage_and_component_is_named() -> None:
    shown = words(drawn())
    for each in PREDICTION.stages:
        for word in each.name.split():
            assert word in shown
    for name in (*PREDICTION.stages[0].weights, ACTIVATIONS):
        assert name in shown
    assert "waits for weights" in shown
    assert "limit 20.0 GB" in shown


def test_areas_add_up_to_the_bytes() -> None:
    root = drawn()
    (line,) = (each for each in root.iter(f"{SVG}line") if each.get("class") == "limit")
    (axis,) = (each for each in root.iter(f"{SVG}line") if each.get("class") == "axis")
    a_byte = (float(axis.attrib["y1"]) - float(line.attrib["y1"])) / LIMIT
    for each in PREDICTION.stages:
        mine = [rect for rect in areas(root) if rect["data-stage"] == each.name]
        heights = {rect["data-part"]: float(rect["height"]) for rect in mine}
        for name, nbytes in (*each.weights.items(), (ACTIVATIONS, each.activations)):
            assert heights.get(name, 0.0) == pytest.approx(nbytes * a_byte, abs=0.02)
        assert sum(heights.values()) == pytest.approx(each.peak_device_bytes * a_byte, abs=0.05)
        # One on top of another, without gaps.
        below = float(axis.attrib["y1"])
        for rect in mine:
            assert float(rect["y"]) + float(rect["height"]) == pytest.approx(below, abs=0.02)
            below = float(rect["y"])


def test_widths() -> None:
    widths = {rect["data-stage"]: float(rect["width"]) for rect in areas(drawn())}
    long = widths.pop("denoise")
    least, *others = sorted(widths.values())
    assert least == LEAST_WIDTH
    assert long > max(others)
    two = replace(PREDICTION, stages=(stage("one", 2.0, 0, 0), stage("two", 3.0, 0, 0)))
    widths = {rect["data-stage"]: float(rect["width"]) for rect in areas(drawn(two))}
    assert widths["two"] / widths["one"] == pytest.approx(1.5, rel=1e-3)
    assert "drawn wider" not in words(drawn(two))
    assert "drawn wider" in words(drawn())


def test_only_stages_that_wait_are_hatched() -> None:
    hatched = [
        rect.attrib
        for rect in drawn().iter(f"{SVG}rect")
        if rect.get("class") == "stall" and "data-stage" in rect.attrib
    ]
    assert [rect["data-stage"] for rect in hatched] == ["encode text", "denoise"]
    widths = {rect["data-stage"]: float(rect["width"]) for rect in areas(drawn())}
    assert float(hatched[0]["width"]) == pytest.approx(widths["encode text"] * 0.9 / 1.3, abs=0.02)
    at_hand = replace(PREDICTION, stages=(stage("denoise", 5.0, 1e-9, GB),))
    assert "waits for weights" not in words(drawn(at_hand)).replace("wait for weights", "")


def test_text_is_escaped() -> None:
    title = "<script>alert('&')</script>\x00\x1b\ud800 \"quoted\""
    svg = plan_svg(PREDICTION, LIMIT, title)
    root = ElementTree.fromstring(svg)
    assert "<script" not in svg
    assert not list(root.iter(f"{SVG}script"))
    named = root.find(f"{SVG}title")
    assert named is not None
    assert named.text == "<script>alert('&')</script>\ufffd\ufffd\ufffd \"quoted\""
    assert 'upsample <&">' in {rect["data-stage"] for rect in areas(root)}


def test_it_needs_nothing_else_and_is_always_the_same() -> None:
    svg = plan_svg(PREDICTION, LIMIT, "a plan")
    assert svg == plan_svg(PREDICTION, LIMIT, "a plan")
    addresses = re.findall(r"https?://[^\"' )]+", svg)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}
    assert set(re.findall(r"url\(([^)]*)\)", svg)) == {"#plan-stalls"}
    assert "prefers-color-scheme: dark" in svg
    assert "@media print" in svg


def test_a_component_has_one_colour_in_every_picture() -> None:
    for rect in areas(drawn()):
        if rect["data-part"] in COMPONENTS:
            assert rect["fill"] == COMPONENTS[rect["data-part"]]
    assert {rect["fill"] for rect in areas(drawn()) if rect["data-part"] == ACTIVATIONS} == {GREY}


def test_what_is_prepared_beforehand_is_said() -> None:
    assert "preparing weights takes 22.0 GB" in words(drawn())
    highest = max(each.peak_device_bytes for each in PREDICTION.stages)
    at_most = replace(PREDICTION, peak_device_bytes=highest)
    assert "preparing" not in words(drawn(at_most))


def test_what_stays_is_at_the_bottom() -> None:
    found = stacking(PREDICTION.stages)
    assert found == ["transformer", "later & <other>", "video_vae", "text_encoder"]


@pytest.mark.parametrize("seconds", [[0.0], [0.0, 0.0], [1.0], [1e-9, 1e6], [1.0] * 40])
@pytest.mark.parametrize("nbytes", [0, 1, 10**15])
def test_extremes(seconds: list[float], nbytes: int) -> None:
    stages = tuple(
        StagePrediction(f"s{n}", each, 0.0, {"transformer": nbytes}, 0)
        for n, each in enumerate(seconds)
    )
    root = ElementTree.fromstring(plan_svg(replace(PREDICTION, stages=stages), nbytes, "edge"))
    right = float(root.attrib["width"])
    for rect in areas(root):
        assert float(rect["width"]) >= LEAST_WIDTH
        assert float(rect["x"]) + float(rect["width"]) <= right
        assert float(rect["y"]) >= 0
