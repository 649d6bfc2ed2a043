import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte.trace.chrome import chrome_trace, write_chrome_trace
from entracte.trace.dump import Dump
from entracte.trace.read_dump import DumpError
from entracte.trace.write_dump import with_ranks

from .sample_dump import Data, plain, resident, snapshot_low_vram

SCHEMA = json.loads(Path(__file__).with_name("chrome_schema.json").read_text())


def traced(data: Data) -> dict[str, Any]:
    trace = chrome_trace(Dump.model_validate(data))
    jsonschema.validate(trace, SCHEMA)
    return trace


def of(trace: dict[str, Any], phase: str) -> list[dict[str, Any]]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


def threads(trace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    names = {e["tid"]: e["args"]["name"] for e in of(trace, "M") if e["name"] == "thread_name"}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for event in of(trace, "X"):
        found[names[event["tid"]]].append(event)
    return found


def assert_no_overlap(trace: dict[str, Any]) -> None:
    for name, events in threads(trace).items():
        for first, second in pairwise(sorted(events, key=lambda e: (e["ts"], e["dur"]))):
            end = round(first["ts"] * 1e3) + round(first["dur"] * 1e3)
            assert end <= round(second["ts"] * 1e3), name


@pytest.mark.parametrize("data", [snapshot_low_vram(), snapshot_low_vram(slow=2.2), resident()])
def test_everything_recorded_is_an_event(data: Data) -> None:
    trace = traced(data)
    assert_no_overlap(trace)
    told = data["recording"]
    stages = [stage for stage in told["stages"] if stage["start_ms"] is not None]
    found = threads(trace)
    assert [e["name"] for e in found.get("stages", [])] == [stage["name"] for stage in stages]
    steps = sum(len(stage["steps"]) for stage in stages)
    assert len(found["steps"]) == steps
    assert len(found.get("blocks", [])) == len(told["blocks"])
    assert len(found.get("waits", [])) == len(told["waits"])
    lanes = {each["lane"] for each in told["transfers"]}
    for lane in lanes:
        mine = [each for each in told["transfers"] if each["lane"] == lane]
        assert len(found[f"lane: {lane}"]) == len(mine)
    everything = len(stages) + steps + sum(len(told[k]) for k in ("blocks", "waits", "transfers"))
    assert len(of(trace, "X")) == everything
    assert {event["ph"] for event in trace["traceEvents"]} == {"M", "X", "C"}
    assert trace["otherData"]["between_stages_ms"] == told["stages"][-1]["duration_ms"]


def test_times_are_microseconds_and_args_say_what_was_moved() -> None:
    data = snapshot_low_vram()
    found = threads(traced(data))
    stage = next(event for event in found["stages"] if event["name"] == "denoise")
    assert (stage["ts"], stage["dur"]) == (942_000, 8_400_000)
    copy = next(e for e in found["lane: copies"] if e["args"]["weights"] == "merged")
    assert copy["name"] == "copy transformer 0"
    assert copy["args"] == {
        "component": "transformer",
        "unit": 0,
        "weights": "merged",
        "bytes": 780_000_000,
        "rate GB/s": 55.714,
    }
    host = next(e for e in found["waits"] if e["args"]["cause"] == "host")
    assert host["args"] == {"cause": "host"}
    assert next(e for e in found["blocks"])["args"] == {"component": "transformer", "unit": 0}


def test_counters_are_the_memory_of_every_component() -> None:
    data = snapshot_low_vram()
    told = data["recording"]["memory"]
    counters = of(traced(data), "C")
    assert {event["name"] for event in counters} == {
        "device memory (bytes)",
        "pinned memory (bytes)",
        "pageable memory (bytes)",
    }
    device = [event for event in counters if event["name"].startswith("device")]
    times = {ms for places in told.values() for ms, _ in places["device"]}
    assert [event["ts"] for event in device] == [round(ms * 1e6) / 1e3 for ms in sorted(times)]
    for event in device:
        for name, nbytes in event["args"].items():
            reached = [b for ms, b in told[name]["device"] if ms * 1e3 <= event["ts"] + 1e-3]
            assert nbytes == reached[-1]


def test_threads_are_named_and_in_order() -> None:
    data = snapshot_low_vram()
    data["recording"]["transfers"][3]["lane"] = "a lane of its own"
    data["recording"]["transfers"][4]["lane"] = "reader"
    trace = traced(data)
    names = [e["args"]["name"] for e in of(trace, "M") if e["name"] == "thread_name"]
    order = [e["args"]["sort_index"] for e in of(trace, "M") if e["name"] == "thread_sort_index"]
    assert names[:4] == ["stages", "steps", "blocks", "waits"]
    assert names[4:] == [
        "lane: copies",
        "lane: on_demand",
        "lane: reader",
        "lane: a lane of its own",
    ]
    assert order == sorted(order)
    process = next(e for e in of(trace, "M") if e["name"] == "process_name")
    assert process["args"]["name"] == "entracte snapshot"


def test_what_overlaps_gets_a_thread_of_its_own() -> None:
    data = snapshot_low_vram()
    for transfer in data["recording"]["transfers"][:3]:
        transfer.update(start_ms=10.0, duration_ms=5.0)
    trace = traced(data)
    assert_no_overlap(trace)
    assert {"lane: copies", "lane: copies (2)", "lane: copies (3)"} <= threads(trace).keys()


def test_neighbours_that_cross_by_a_clocks_difference_stay_together() -> None:
    data = snapshot_low_vram()
    first, second, third = data["recording"]["transfers"][:3]
    first.update(start_ms=10.0, duration_ms=5.02)
    second.update(start_ms=15.0, duration_ms=0.01)  # within the first, but for its end
    third.update(start_ms=15.015, duration_ms=4.0)
    trace = traced(data)
    assert_no_overlap(trace)
    assert "lane: copies (2)" not in threads(trace)


def test_a_counter_keeps_what_did_not_change() -> None:
    data = resident()
    data["recording"]["memory"] = {
        "a": {"device": [[0, 1], [2, 3]]},
        "b": {"device": [[0, 5], [1, 7]]},
    }
    assert [event["args"] for event in of(traced(data), "C")] == [
        {"a": 1, "b": 5},
        {"a": 1, "b": 7},
        {"a": 3, "b": 7},
    ]


def test_a_dump_without_recording_is_refused() -> None:
    with pytest.raises(DumpError, match="no recording"):
        chrome_trace(Dump.model_validate(plain()))


def test_a_transfer_without_duration_has_no_rate() -> None:
    data = snapshot_low_vram()
    data["recording"]["transfers"][0]["duration_ms"] = 0.0
    first = threads(traced(data))["lane: copies"][0]
    assert "rate GB/s" not in first["args"]


def test_written(tmp_path: Path) -> None:
    path = tmp_path / "run.trace.json"
    trace = traced(snapshot_low_vram())
    write_chrome_trace(path, trace)
    assert json.loads(path.read_text()) == trace
    assert list(tmp_path.iterdir()) == [path]


TIMES = st.floats(0, 2e4, allow_nan=False)
SPANS = st.lists(st.tuples(TIMES, TIMES, st.sampled_from(["copies", "merges", "reader"])))
STAIRS = st.lists(st.tuples(TIMES, st.integers(0, 10**11)))


@pytest.mark.slow
@given(SPANS, STAIRS, STAIRS)
def test_any_recording(
    spans: list[tuple[float, float, str]],
    one: list[tuple[float, int]],
    other: list[tuple[float, int]],
) -> None:
    data = resident()
    told = data["recording"]
    told["transfers"] = [
        {
            "start_ms": start,
            "duration_ms": duration,
            "what": "copy",
            "lane": lane,
            "component": "transformer",
            "unit": None,
            "weights": "base",
            "bytes": 5,
        }
        for start, duration, lane in spans
    ]
    told["waits"] = [
        {"start_ms": s, "duration_ms": d, "cause": "copy", "component": None, "unit": None}
        for s, d, _ in spans
    ]
    told["memory"] = {"a": {"device": sorted(one)}, "b": {"device": sorted(other), "pinned": []}}
    trace = traced(data)
    assert_no_overlap(trace)
    moved = [e for name, events in threads(trace).items() for e in events if "lane" in name]
    assert len(moved) == len(spans)
    assert len(of(trace, "C")) == len({ms for ms, _ in one + other})


@pytest.mark.slow
def test_ranks_are_processes_on_one_axis() -> None:
    """The second began 3 ms after the first, and the third 2 ms before it."""

    def began(seconds: float) -> Dump:
        timestamp = f"2026-11-26T12:00:{seconds:09.6f}+00:00"
        return Dump.model_validate(snapshot_low_vram() | {"timestamp": timestamp})

    leader, *followers = began(30.0), began(30.003), began(29.998)
    merged = with_ranks(leader, followers)
    trace = chrome_trace(Dump.model_validate(merged.to_json()))
    jsonschema.validate(trace, SCHEMA)
    names = {e["pid"]: e["args"]["name"] for e in of(trace, "M") if e["name"] == "process_name"}
    assert [names[pid].partition(":")[0] for pid in (1, 2, 3)] == ["rank 0", "rank 1", "rank 2"]
    first = {pid: min(e["ts"] for e in of(trace, "X") if e["pid"] == pid) for pid in names}
    assert [round(first[pid] - first[3]) for pid in (1, 2, 3)] == [2000, 5000, 0]
    alone = of(chrome_trace(leader), "X")
    assert len(of(trace, "X")) == 3 * len(alone)


def test_one_rank_is_as_before() -> None:
    dump = Dump.model_validate(snapshot_low_vram())
    assert with_ranks(dump, []) == dump
    assert not {"ranks", "offset_ms"} & dump.to_json().keys()
