"""`entracte bench` and `entracte profile`."""

import json
from pathlib import Path

import pytest

from entracte.cli.bench import EXIT_WORSE
from entracte.cli.main import EXIT_REFUSED, run

SMALL = ["--preset", "cpu", "--height", "64", "--width", "64", "--num-frames", "9"]
SMALL += ["--num-inference-steps", "1", "--quiet"]


def bench(*words: object) -> int:
    return run(["bench", *map(str, words)])


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "give either --model, or --random-weights"),
        (["--random-weights", "--model", "x"], "give either --model, or --random-weights"),
        (["--random-weights", "--preset", "huge"], "'huge' is not one of seed, hd, short, cpu"),
        (["--random-weights", "--modes", "fast"], "'fast', which is not one of resident"),
        (["--random-weights", "--repeats", "0"], "--repeats: must be a whole number from 1"),
        (["--random-weights", "--dumps", "d", "--trace-level", "off"], "--dumps needs a trace"),
        (["--random-weights", "--height", "100"], "not a multiple of 64"),
        (["--random-weights", "--task", "t2v", "--image", "a.png"], "--image is for --task i2v"),
        (["--random-weights", "--image", "a.png", "x"], "--image a.png: frame"),
        (["--compare", "a", "b", "c"], "at most one other"),
        (["--compare", "missing.json"], "cannot read missing.json"),
    ],
)
def test_refusals_come_before_any_work(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*words) == EXIT_REFUSED
    assert problem in capsys.readouterr().err


def test_dumps_that_are_there_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fused.json").write_text("mine")
    words = ["--random-weights", "--modes", "fused", "--dumps", tmp_path]
    assert bench(*words) == EXIT_REFUSED
    assert "give --force to overwrite it" in capsys.readouterr().err
    assert (tmp_path / "fused.json").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("modes", "repeats"), [(["resident"], 1), (["resident", "snapshot low-vram"], 2)]
)
def test_every_run_is_told_and_dumped(
    demo_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    modes: list[str],
    repeats: int,
) -> None:
    words = ["--model", demo_model, *SMALL, "--repeats", repeats, "--warmups", 0]
    words += ["--dumps", tmp_path]
    assert bench(*words, "--json", "--modes", *modes) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["t2v"]
    assert found["same_bits"] is True
    assert list(found["modes"]) == modes
    for each in found["modes"].values():
        assert len(each["runs"]) == repeats
        assert each["floor_shares"].keys() == found["floors"].keys() == {"denoise", "refine"}
        for one in each["runs"]:
            assert one["closed"] == pytest.approx(1, rel=0.01)
            assert one["stages"]["encode text"] > 0  # prompts are forgotten between runs
            assert one["steps"].keys() == {"denoise", "refine"}
    assert run(["report", *map(str, tmp_path.glob("*.json")), "-o", str(tmp_path / "r.html")]) == 0
    assert all(mode.split()[0] in (tmp_path / "r.html").read_text() for mode in modes)


@pytest.mark.slow
def test_tasks_are_beside_each_other_and_can_be_compared(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", demo_model, *SMALL, "--repeats", 1, "--warmups", 0, "--modes", "fused"]
    assert bench(*words, "--task", "t2v", "i2v", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    (before := tmp_path / "before.json").write_text(json.dumps(found))
    assert found["tasks"]["i2v"]["request"]["images"] == [0]
    stages = [each["modes"]["fused"]["runs"][0]["stages"] for each in found["tasks"].values()]
    assert [each.get("encode images (stage1)", 0) > 0 for each in stages] == [False, True]

    assert bench("--compare", before, before, "--tolerance", 0) == 0
    assert "end to end" in capsys.readouterr().out
    for task in found["tasks"].values():
        for one in task["modes"]["fused"]["runs"]:
            one["latents"] = "other"
            one["end_to_end"] = 0.001
    before.write_text(json.dumps(found))
    assert bench(*words, "--task", "t2v", "--compare", before) == EXIT_WORSE
    shown = capsys.readouterr().out
    assert "floor" in shown
    assert "worse" in shown
    assert "the latents have other bits" in shown


@pytest.mark.slow
def test_diffusers_is_beside_them(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", demo_model, *SMALL, "--repeats", 1, "--warmups", 0, "--modes", "resident"]
    assert bench(*words, "--task", "t2v", "i2v", "--against", "diffusers", "--json") == 0
    tasks = json.loads(capsys.readouterr().out)["tasks"]
    peer = tasks["t2v"]["peers"]["diffusers"]
    assert peer["failed"] is peer["compiling"] is None
    assert peer["floor_shares"].keys() == {"denoise", "refine"}
    assert max(peer["distances"].values()) < 0.1
    # diffusers cannot express this model's encoder of pictures.
    assert "encoder of pictures" in tasks["i2v"]["peers"]["diffusers"]["failed"]


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_the_reason(
    demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", demo_model, *SMALL, "--modes", "resident", "--device-memory", "1MB"]
    assert bench(*words) == EXIT_REFUSED
    problem = capsys.readouterr().err
    assert "no mode fits" in problem
    assert "resident: lacks" in problem


@pytest.mark.slow
def test_costs_are_listed_by_stage(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", "--model", str(demo_model), "--prompt", "A street", "--json"]
    words += ["--height", "128", "--width", "128", "--num-frames", "9"]
    words += ["--num-inference-steps", "1", "--torch-trace-path", str(tmp_path / "t.json")]
    assert run(words) == 0
    costs = json.loads(capsys.readouterr().out)["costs"]
    by_stage = {(each["stage"], each["name"]): each for each in costs}
    assert by_stage["denoise", "aten::addmm"]["calls"] > 0
    assert by_stage["refine", "aten::addmm"]["host_s"] > 0
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
