"""Two runs of a benchmark compared: what is worse, and what is only noise."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from entracte.bench.compare import compare, read
from entracte.errors import RequestError

Run = dict[str, Any]


def run(scale: float = 1.0, peak: int = 10**9, latents: str = "a") -> Run:
    """A measured run whose denoising takes `scale` seconds."""
    return {
        "stages": {"validate": 0.0002, "denoise": scale},
        "steps": {"denoise": scale / 10},
        "end_to_end": scale + 0.0002,
        "peak_device_bytes": peak,
        "host_bytes": 5 * 10**8,
        "latents": latents,
    }


def bench(*runs: Run, mode: str = "fused", skipped: str | None = None) -> dict[str, Any]:
    return {
        "machine": {"device": "H", "threads": 2, "torch": "2.11"},
        "model": "random full",
        "dtype": "bfloat16",
        "tasks": {
            "t2v": {
                "request": {"width": 768, "guidance_batch": 4},
                "floors": {"denoise": {"step": 0.08}},
                "modes": {mode: {"runs": list(runs), "skipped": skipped}},
            }
        },
    }


OLD = bench(run(1.00), run(1.01), run(1.02))


def worse(new: dict[str, Any], tolerance: float = 0.03) -> set[str]:
    return {each.what for each in compare(OLD, new, tolerance).changes if each.verdict == "worse"}


def test_the_same_run_is_not_worse() -> None:
    compared = compare(OLD, deepcopy(OLD), 0.03)
    assert not compared.worse
    assert {each.verdict for each in compared.changes} == {"same"}
    assert compared.notes == []


def test_what_is_slower_is_named() -> None:
    assert worse(bench(run(1.10), run(1.11), run(1.12))) == {
        "end to end",
        "denoise",
        "a step of denoise",
    }


def test_what_is_within_the_tolerance_is_not_worse() -> None:
    new = bench(run(1.035), run(1.035), run(1.035))
    assert not worse(new)
    assert worse(new, tolerance=0.01)


def test_what_is_within_the_spread_is_not_worse() -> None:
    assert not worse(bench(run(1.00), run(1.10), run(1.12)))


def test_a_stage_that_takes_no_time_is_not_worse() -> None:
    new = deepcopy(OLD)
    for each in new["tasks"]["t2v"]["modes"]["fused"]["runs"]:
        each["stages"]["validate"] *= 5
    assert not worse(new)


def test_more_memory_is_worse() -> None:
    assert worse(bench(*(run(1.01, peak=11 * 10**8) for _ in range(3)))) == {"peak memory"}


def test_what_is_quicker_is_told() -> None:
    compared = compare(OLD, bench(run(0.8), run(0.8), run(0.8)), 0.03)
    assert not compared.worse
    assert "better" in {row[-1] for row in compared.table()}
    assert json.dumps(compared.json())


def test_other_bits_are_worse_unless_torch_is_another() -> None:
    new = bench(*(run(1.01, latents="b") for _ in range(3)))
    compared = compare(OLD, new, 0.03)
    assert compared.worse
    assert "other bits" in compared.broken[0]
    new["machine"]["torch"] = "2.12"
    compared = compare(OLD, new, 0.03)
    assert not compared.worse
    assert len(compared.notes) == 2


def test_a_mode_that_no_longer_runs_is_worse() -> None:
    compared = compare(OLD, bench(skipped="lacks memory"), 0.03)
    assert compared.worse
    assert "no longer runs: lacks memory" in compared.broken[0]


def test_what_explains_a_change_is_told() -> None:
    new = bench(run(1.01))
    task = new["tasks"]["t2v"]
    task["floors"]["denoise"]["step"] = 0.1
    task["request"]["guidance_batch"] = 1
    notes = "\n".join(compare(OLD, new, 0.03).notes)
    for words in ("the floor of denoise itself took 1.25", "batch was 4 and is 1", "ran once"):
        assert words in notes


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("machine", "device"), "other", "machine has device other, and had H"),
        (("model",), "other", "run has model other"),
        (("tasks", "t2v", "request", "width"), 64, "has width 64, and had 768"),
        (("tasks", "t2v", "modes"), {}, "no task and mode in common"),
    ],
    ids=["device", "model", "request", "modes"],
)
def test_what_cannot_be_compared_is_refused(
    path: tuple[str, ...], value: object, problem: str
) -> None:
    new = deepcopy(OLD)
    *folders, name = path
    place = new
    for each in folders:
        place = place[each]
    place[name] = value
    with pytest.raises(RequestError, match=problem):
        compare(OLD, new, 0.03)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"other": 1}'])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RequestError, match="cannot read|is not what"):
        read(tmp_path / "run.json")
