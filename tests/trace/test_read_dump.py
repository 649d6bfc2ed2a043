import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from entracte.errors import EntracteError
from entracte.trace.read_dump import DumpError, read_dump

from .sample_dump import Data, plain, resident, snapshot_low_vram, write


def refused(path: Path) -> str:
    with pytest.raises(DumpError) as caught:
        read_dump(path)
    assert isinstance(caught.value, EntracteError)
    message = str(caught.value)
    assert str(path) in message
    return message


def test_all_is_read(tmp_path: Path) -> None:
    data = snapshot_low_vram()
    dump = read_dump(write(tmp_path, data))
    recording = dump.recording
    assert recording is not None
    told = data["recording"]
    assert dump.mode == "snapshot"
    assert dump.tag == "entracte"
    assert dump.total_duration_ms == data["total_duration_ms"]
    assert dump.closure is not None
    assert dump.closure.share == pytest.approx(1)
    assert [stage.name for stage in recording.stages] == [each["name"] for each in told["stages"]]
    assert recording.stages[-1].start_ms is None
    assert len(recording.timed_stages) == len(told["stages"]) - 1
    for kind, found in (
        ("waits", recording.waits),
        ("transfers", recording.transfers),
        ("blocks", recording.blocks),
    ):
        assert [span.model_dump(by_alias=True, exclude_unset=True) for span in found] == told[kind]
    refine = next(stage for stage in recording.stages if stage.name == "refine")
    assert refine.parts.stall_ms == refine.parts.waited("copy") > 0
    assert refine.parts.total_ms == pytest.approx(refine.duration_ms)
    residency = recording.residency
    assert residency is not None
    assert [[list(change) for change in block] for block in residency.blocks] == told["residency"][
        "blocks"
    ]
    assert recording.memory["text_encoder"]["device"] == ((0, 0), (425, 2_400_000_000), (905, 0))


def test_what_was_read_cannot_be_changed(tmp_path: Path) -> None:
    dump = read_dump(write(tmp_path, resident()))
    with pytest.raises(ValueError, match="frozen"):
        dump.tag = "other"


@pytest.mark.parametrize(
    ("meta", "mode"),
    [
        ({}, None),
        ({"mode": "fused"}, "fused"),
        ({"mode": "auto", "plan": None}, "auto"),
        ({"mode": "auto", "plan": {"mode": "resident"}}, "resident"),
        ({"mode": ["fused"]}, None),
    ],
)
def test_mode(meta: Data, mode: str | None, tmp_path: Path) -> None:
    assert read_dump(write(tmp_path, plain() | {"meta": meta})).mode == mode


@pytest.mark.parametrize("absent", [{}, {"recording": None, "closure": None}])
def test_another_engines_dump_has_its_stages(absent: Data, tmp_path: Path) -> None:
    dump = read_dump(write(tmp_path, plain() | absent))
    assert dump.recording is None
    assert [stage.name for stage in dump.steps][1] == "DenoisingStage"
    assert dump.memory_checkpoints["DenoisingStage"].peak_allocated_mb == 48_000


def test_clocks_may_differ_a_little(tmp_path: Path) -> None:
    data = snapshot_low_vram()
    data["recording"]["waits"][0]["duration_ms"] = -0.01
    recording = read_dump(write(tmp_path, data)).recording
    assert recording is not None
    assert recording.waits[0].duration_ms == 0


def test_no_file(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "absent.json")


def test_a_folder(tmp_path: Path) -> None:
    assert "cannot read" in refused(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "not text" in refused(path)


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    whole = json.dumps(resident() | {"tag": "é\\ \x07"}, indent=1)
    ends = [n * 97 for n in range(1, len(whole) // 97)]
    ends += range(len(whole) - 400, len(whole) - 2)  # ends in names, numbers and brackets
    for end in ends:
        part = whole[:end]
        path.write_text(part)
        message = refused(path)
        assert "was cut off" in message, part[-30:]
        assert f"in line {len(part.rstrip().splitlines())}:" in message


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("\n")
    assert "is empty" in refused(path)


def test_no_json(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{\n "a": 1,\n nonsense }')
    message = refused(path)
    assert "not JSON" in message
    assert "line 3" in message


def test_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("[" * 200_000 + "]" * 200_000)
    assert "not a performance dump" in refused(path)


@pytest.mark.parametrize("data", [[], 3, "text", None, {}, {"traceEvents": []}, {"steps": []}])
def test_not_a_dump(data: Any, tmp_path: Path) -> None:
    message = refused(write(tmp_path, data))
    assert "not a performance dump" in message
    assert "`perf_dump_path`" in message


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version(version: Any, tmp_path: Path) -> None:
    data = snapshot_low_vram()
    data["recording"]["version"] = version
    message = refused(write(tmp_path, data))
    assert repr(version) in message
    assert "reads version 1" in message


def _stage(data: Data) -> Data:
    stage = data["recording"]["stages"][2]
    assert isinstance(stage, dict)
    return stage


def _set(where: list[Any], value: Any) -> Callable[[Data], None]:
    def change(data: Data) -> None:
        place: Any = data["recording"]
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["waits", 0, "cause"], "boredom"), "recording.waits.0.cause"),
        (_set(["waits", 0, "duration_ms"], -3), "must not be negative"),
        (_set(["blocks", 5, "unit"], -1), "recording.blocks.5.unit"),
        (_set(["transfers", 0, "bytes"], -1), "recording.transfers.0.bytes"),
        (_set(["transfers", 0, "start_ms"], float("nan")), "recording.transfers.0.start_ms"),
        (_set(["stages", 2, "start_ms"], None), "stage encode text has no start"),
        (_set(["stages", 2, "start_ms"], 9000.0), "not in the order of time"),
        (_set(["stages", 9, "duration_ms"], 1e6), "ends after the run does"),
        (_set(["stages", 2, "parts", "compute"], 9e4), "add up to"),
        (_set(["memory", "text_encoder", "attic"], []), "recording.memory.text_encoder.attic"),
        (_set(["memory", "text_encoder", "device"], [[5, 1], [4, 0]]), "goes back in time"),
        (_set(["memory", "text_encoder", "device"], [[5, -1]]), "memory.text_encoder.device"),
        (_set(["residency", "blocks", 7], [[0, 6]]), "block 7 has a state"),
        (_set(["residency", "blocks", 7], [[9, 1], [8, 2]]), "block 7 goes back in time"),
        (_set(["residency", "states", 0], "elsewhere"), "recording.residency.states.0"),
        (lambda data: data.update(total_duration_ms=1.0), "closure says"),
        (lambda data: data.update(steps={}), "steps"),
        (lambda data: data["recording"].pop("waits"), "recording.waits"),
        (lambda data: data.update(recording=[]), "recording"),
    ],
)
def test_inconsistent(change: Callable[[Data], None], says: str, tmp_path: Path) -> None:
    data = snapshot_low_vram()
    change(data)
    message = refused(write(tmp_path, data))
    assert "inconsistent" in message
    assert says in message
