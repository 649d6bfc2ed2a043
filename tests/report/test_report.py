import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from entracte.report.colours import ACTIVATIONS, COMPONENTS, OTHERS, STAGES, STATES, WAITS
from entracte.report.memory_chart import COLUMNS, HEIGHT, memory_chart, staircase
from entracte.report.page import report_page
from entracte.report.residency_map import residency_map, zoom_window
from entracte.report.stage_bars import stage_bars
from entracte.report.stage_rows import all_names
from entracte.report.tables import stage_table
from entracte.report.time_axis import LEFT, PLOT, TimeScale
from entracte.trace.dump import Dump, Recording
from tests.trace.sample_dump import BLOCKS, GB, MERGED, Data, plain, resident, snapshot_low_vram

SVG = "{http://www.w3.org/2000/svg}"
NASTY = '<script>alert("x")</script> & \x07 "quotes"'


def read(data: Data) -> Dump:
    return Dump.model_validate(data)


def recorded(data: Data) -> Recording:
    recording = read(data).recording
    assert recording is not None
    return recording


def drawn_map(data: Data, alone: bool = False) -> ElementTree.Element:
    svg = residency_map(recorded(data), data["total_duration_ms"], "map", "a map", alone)
    assert svg is not None
    return ElementTree.fromstring(svg)


def boxes(path: str) -> list[tuple[float, float, float]]:
    """Of every box of a path: its left, top and width."""
    found = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v", path)
    assert len(found) == path.count("z")
    return [(float(x), float(y), float(w)) for x, y, w in found]


class Page(HTMLParser):
    """What is on a page: tags, and that they are closed in order."""

    EMPTY = ("meta", "link", "col", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page(*dumps: tuple[str, Data]) -> tuple[str, Page]:
    made = report_page([(label, read(data)) for label, data in dumps])
    return made, Page(made)


def test_the_map_shows_the_roll() -> None:
    data = snapshot_low_vram()
    root = drawn_map(data)
    merged = [p for p in root.iter(f"{SVG}path") if p.get("data-state") == "merged"]
    flying = [p for p in root.iter(f"{SVG}path") if p.get("data-state") == "in flight"]
    assert len(merged) == len(flying) == 2, "the whole run and the zoom"
    whole, zoomed = (boxes(each.get("d", "")) for each in merged)
    assert len(whole) == len(zoomed) == BLOCKS
    for found in (whole, zoomed):
        tops = [y for _, y, _ in found]
        lefts = [x for x, _, _ in found]
        assert tops == sorted(tops)
        assert lefts == sorted(lefts), "a block after the other"
    # Where a box begins is when the block had its weights.
    scale = TimeScale(0, data["total_duration_ms"])
    for (left, _, _), changes in zip(whole, data["recording"]["residency"]["blocks"], strict=True):
        assert left == pytest.approx(scale.x(changes[-1][0]), abs=0.02)
    # In the zoom, a block that is in flight is wide enough to be seen.
    last_flight = boxes(flying[1].get("d", ""))[-BLOCKS:]
    assert min(width for _, _, width in last_flight) > 5
    assert len([p for p in root.iter(f"{SVG}path") if p.get("class") == "runs"]) == 1


def test_every_moment_of_a_block_has_one_colour() -> None:
    root = drawn_map(snapshot_low_vram())
    rows: dict[float, float] = {}
    for path in root.iter(f"{SVG}path"):
        if path.get("data-state"):
            for _, top, width in boxes(path.get("d", "")):
                rows[top] = rows.get(top, 0) + width
    assert len(rows) == 2 * BLOCKS
    for width in rows.values():
        assert width == pytest.approx(PLOT, abs=0.5)


def test_the_zoom_is_the_swap() -> None:
    data = snapshot_low_vram()
    lens = zoom_window(recorded(data), data["total_duration_ms"])
    assert lens is not None
    swaps = [ms for block in data["recording"]["residency"]["blocks"] for ms, _ in block[-2:]]
    assert lens.start_ms < min(swaps)
    assert lens.end_ms > max(swaps)
    assert lens.end_ms - lens.start_ms < 2 * (max(swaps) - min(swaps))


def test_the_zoom_is_one_round_where_there_are_many() -> None:
    data = snapshot_low_vram()
    refine = next(s for s in data["recording"]["stages"] if s["name"] == "refine")
    for unit, block in enumerate(data["recording"]["residency"]["blocks"]):
        del block[-2:]
        for step in refine["steps"]:
            at = step["start_ms"] + 10 * unit
            block += [[at, 2], [at + 5, MERGED], [at + 9, 3]]
    lens = zoom_window(recorded(data), data["total_duration_ms"])
    assert lens is not None
    assert 47 * 10 <= lens.end_ms - lens.start_ms < 1.6 * 48 * 10


def test_without_the_two_stages_the_zoom_is_where_blocks_change() -> None:
    data = snapshot_low_vram()
    for stage in data["recording"]["stages"]:
        stage["name"] = stage["name"].replace("refine", "once more")
    lens = zoom_window(recorded(data), data["total_duration_ms"])
    assert lens is not None
    assert lens.end_ms < 1000, "the first load is the shortest roll"


def test_no_zoom_where_nothing_moves() -> None:
    root = drawn_map(resident())
    assert [p.get("data-state") for p in root.iter(f"{SVG}path") if p.get("data-state")] == ["both"]


def test_a_map_alone_has_its_style_and_words() -> None:
    root = drawn_map(snapshot_low_vram(), alone=True)
    assert root.find(f"{SVG}style") is not None
    assert root.find(f"{SVG}title") is not None
    described = root.find(f"{SVG}desc")
    assert described is not None
    assert "48 blocks of transformer" in (described.text or "")
    assert "in flight" in (described.text or "")


def test_no_map_without_blocks() -> None:
    data = resident()
    data["recording"]["residency"]["blocks"] = []
    assert residency_map(recorded(data), 1000, "map", "a map") is None


def test_memory_areas_are_stacked() -> None:
    data = snapshot_low_vram()
    svg = memory_chart(recorded(data), data["total_duration_ms"], "device", "m")
    assert svg is not None
    root = ElementTree.fromstring(svg)
    areas = [p for p in root.iter(f"{SVG}path") if p.get("fill")]
    titles = [area.findtext(f"{SVG}title") for area in areas]
    assert titles == [
        "transformer: up to 37.4 GB",
        "video_vae: up to 2.0 GB",
        "text_encoder: up to 2.4 GB",
    ]
    peaks = [line for line in root.iter(f"{SVG}line") if line.get("class") == "peak"]
    assert len(peaks) == len(data["recording"]["stages"])  # without between stages, with the legend


def test_memory_heights_are_true() -> None:
    data = snapshot_low_vram()
    data["recording"]["memory"] = {"transformer": {"pinned": [[0, 3 * GB]], "pageable": [[0, GB]]}}
    svg = memory_chart(recorded(data), data["total_duration_ms"], "host", "m")
    assert svg is not None
    areas = [
        p.get("d", "") for p in ElementTree.fromstring(svg).iter(f"{SVG}path") if p.get("fill")
    ]
    ys = [sorted({float(y) for y in re.findall(r"V([\d.]+)", area)}) for area in areas[-2:]]
    (low_top, bottom), (high_top, high_bottom) = ys
    assert bottom - low_top == pytest.approx(HEIGHT * 3 / 4.2, abs=0.02)
    assert high_bottom == low_top
    assert low_top - high_top == pytest.approx(HEIGHT / 4.2, abs=0.02)


def test_many_moments_keep_their_peak() -> None:
    data = resident()
    line = [[n * 0.5, GB + (n % 7)] for n in range(20_000)]
    line[12_345][1] = 50 * GB
    data["recording"]["memory"] = {"transformer": {"device": line}}
    scale = TimeScale(0, data["total_duration_ms"])
    moments = staircase(recorded(data), [("transformer", "device")], scale)
    assert len(moments) <= 2 * COLUMNS + 2
    assert (12_345 * 0.5, (50 * GB,)) in moments
    assert moments[-1] == (line[-1][0], (line[-1][1],))


def test_no_chart_without_memory() -> None:
    assert memory_chart(recorded(resident()), 1000, "host", "m") is None


def test_bars_share_one_axis_and_show_waits() -> None:
    data, slow = snapshot_low_vram(), snapshot_low_vram(slow=2.2)
    svg = stage_bars([("a", read(data)), ("b", read(slow)), ("c", read(plain()))], "bars")
    rects = list(ElementTree.fromstring(svg).iter(f"{SVG}rect"))
    ends = {}
    scale = PLOT / slow["total_duration_ms"]
    for label in "abc":
        mine = [r for r in rects if (r.findtext(f"{SVG}title") or "").startswith(f"{label}: ")]
        ends[label] = max(float(r.get("x", 0)) + float(r.get("width", 0)) for r in mine) - LEFT
    assert ends["b"] == pytest.approx(PLOT, abs=0.1)
    assert ends["a"] == pytest.approx(data["total_duration_ms"] * scale, abs=0.1)
    assert ends["c"] == pytest.approx(14959.1 * scale, abs=0.1)
    waits = [r for r in rects if "refine waits for copy" in (r.findtext(f"{SVG}title") or "")]
    refine = next(s for s in slow["recording"]["stages"] if s["name"] == "refine")
    assert float(waits[-1].get("width", 0)) == pytest.approx(
        refine["parts"]["copy"] * scale, abs=0.02
    )


def test_waits_of_one_stage_stand_side_by_side() -> None:
    data = snapshot_low_vram()
    svg = stage_bars([("a", read(data))], "bars")
    scale = PLOT / data["total_duration_ms"]
    found = {
        r.get("data-part"): (float(r.get("x", 0)), float(r.get("width", 0)))
        for r in ElementTree.fromstring(svg).iter(f"{SVG}rect")
        if "encode text waits" in (r.findtext(f"{SVG}title") or "")
    }
    (copy, copy_wide), (host, host_wide) = found["copy"], found["host"]
    assert copy + copy_wide == pytest.approx(host, abs=0.02)
    assert copy_wide == pytest.approx(120 * scale, abs=0.02)
    assert host_wide == pytest.approx(6 * scale, abs=0.02)


def test_names_of_all_dumps_in_order() -> None:
    names = all_names([read(resident()), read(snapshot_low_vram()), read(plain())])
    assert names[-1] == "between stages"
    assert names.index("load weights") < names.index("encode text") < names.index("connect text")
    assert names.index("upsample") < names.index("refine") < names.index("decode audio")
    assert names[-4:-1] == ["TextEncodingStage", "DenoisingStage", "DecodingStage"]
    assert len(names) == len(set(names))


def test_the_page_needs_nothing_else() -> None:
    made, found = page(("a", snapshot_low_vram()), ("b", resident()), ("c", plain()))
    names = {tag for tag, _ in found.tags}
    assert "script" not in names
    assert {"table", "caption", "h1", "h2", "h3", "svg", "main", "title", "desc"} <= names
    assert not re.search(r'(src|href)="(?!#|data:,")', made)
    assert "@import" not in made
    assert set(re.findall(r"url\((.)", made)) == {"#"}
    assert made.count("http:") == made.count('xmlns="http://www.w3.org/2000/svg"')
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)", made) + re.findall(r'href="#([^"]+)"', made)
    used += [i for _, a in found.tags for i in (a.get("aria-labelledby") or "").split()]
    assert set(used) <= set(ids)


def test_the_table_has_what_was_measured() -> None:
    data = snapshot_low_vram(slow=2.2)
    made, found = page(("a", data), ("c", plain()))
    words = " ".join(found.words)
    for stage in data["recording"]["stages"]:
        assert stage["name"] in words
        assert f"{stage['duration_ms']:,.1f}" in words
    assert "621.0" in words  # the stall of refine
    assert "52.0 GB" in words
    assert "parts 15,146.8 ms = 100.00% of end to end" in words
    row = re.search(r'<th scope="row">encode text</th>(.*?)</tr>', made)
    assert row is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1])
    assert cells == ["490.0", "3.2%", "120.0", "6.0", "44.0 GB", "–"]
    assert "12,000.5" in words
    assert "50.3 GB" in words  # 48,000 MiB


def test_another_engines_dump_says_what_is_missing() -> None:
    made, found = page(("other", plain()))
    assert "another engine or an older version made it" in made
    assert len([1 for tag, _ in found.tags if tag == "svg"]) == 1
    assert "DenoisingStage" in made


def test_a_recording_without_blocks_and_memory_says_so() -> None:
    data = resident()
    data["recording"]["residency"]["blocks"] = []
    data["recording"]["memory"] = {}
    made, _ = page(("a", data))
    assert "there is no residency map" in made
    assert "no weights on the device" in made
    assert "no weights on the host" in made


def test_an_empty_run_is_drawn() -> None:
    data = plain() | {"total_duration_ms": 0.0, "steps": [], "memory_checkpoints": {}}
    made, _ = page(("a", data))
    assert "end to end" in made


def test_what_comes_from_a_dump_is_escaped() -> None:
    data = snapshot_low_vram()
    told = data["recording"]
    data["tag"] = NASTY
    data["meta"] = {"mode": NASTY}
    for stage in told["stages"][:-1]:
        stage["name"] += NASTY
    for transfer in told["transfers"]:
        transfer.update(lane=NASTY, component=NASTY)
    for wait in told["waits"]:
        wait["component"] = NASTY
    told["memory"] = {NASTY: {"device": [[0, 5]], "pageable": [[0, 5]]}}
    told["residency"]["component"] = NASTY
    other = plain()
    other["steps"][0]["name"] = NASTY
    other["memory_checkpoints"] = {NASTY: {"allocated_mb": 1.0}}
    made, found = page((NASTY, data), (NASTY, other))
    assert "script" not in {tag for tag, _ in found.tags}
    assert "<script" not in made
    assert "\x07" not in made
    assert '"quotes"' not in made
    for svg in re.findall(r"<svg.*?</svg>", made, re.DOTALL):
        ElementTree.fromstring(svg)


def test_colours_differ() -> None:
    for palette in (
        [*COMPONENTS.values(), *OTHERS, ACTIVATIONS],
        [*STAGES],
        [*WAITS.values()],
        [kind for kind, _ in STATES.values()],
    ):
        assert len(palette) == len(set(palette))


def test_a_group_has_its_exchange() -> None:
    data = snapshot_low_vram()
    assert ">exchange</th>" not in stage_table([("one", Dump.model_validate(data))])
    denoise = next(s for s in data["recording"]["stages"] if s["name"] == "denoise")
    denoise["parts"] |= {"compute": denoise["parts"]["compute"] - 640.0, "exchange": 640.0}
    several = [(f"rank {n}", Dump.model_validate(data)) for n in range(2)]
    table = stage_table(several)
    assert table.count(">exchange</th>") == 2
    assert table.count("<td>640.0</td>") == 4  # the stage's and the whole's, of two ranks
    assert 'data-part="exchange"' in stage_bars(several, "bars")
