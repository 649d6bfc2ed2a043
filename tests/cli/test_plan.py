import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from entracte.cli import plan_inputs
from entracte.cli.main import run
from entracte.machine.cards import card
from entracte.machine.hardware import Hardware
from entracte.planner.decision import MODES

OPTION = {
    "mode",
    "policy",
    "resident_blocks",
    "merged_blocks",
    "transformer_from",
    "places",
    "latency_s",
    "stall_s",
    "switch_s",
    "exchange_s",
    "peak_device_bytes",
    "peak_host_bytes",
    "for_peers_bytes",
    "at_peers_bytes",
    "fits",
    "reason",
    "stages",
    "flags",
}
STAGE = {"name", "seconds", "stall_s", "exchange_s", "peak_device_bytes"}
GIB = 2**30


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is found by chance in the folder that the tests run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    code = run(["plan", *flags, "--json"])
    out = json.loads(capsys.readouterr().out)
    assert code == 0, out
    assert isinstance(out, dict)
    return out


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert run(["plan", *flags]) == 2
    err = capsys.readouterr().err
    assert isinstance(err, str)
    return err


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("gpu", "resident"), [("h200", True), ("rtx-4090", False)])
def test_json(gpu: str, resident: bool, capsys: pytest.CaptureFixture[str]) -> None:
    shown = planned(capsys, "--gpu", gpu)
    assert shown.keys() == {"chosen", "alternatives", "limits", "machine", "workload"}
    chosen, others = shown["chosen"], shown["alternatives"]
    options = [chosen, *others]
    assert {(each["mode"], each["policy"]) for each in options} == set(MODES)
    limits = shown["limits"]
    for each in options:
        assert each.keys() == OPTION
        within = each["peak_device_bytes"] <= limits["device"]
        within = within and each["peak_host_bytes"] <= limits["host"]
        assert each["fits"] == within
        for stage in each["stages"]:
            assert stage.keys() == STAGE
            assert 0 <= stage["stall_s"] <= stage["seconds"]
            assert stage["peak_device_bytes"] <= each["peak_device_bytes"]
        seconds = sum(stage["seconds"] for stage in each["stages"])
        assert each["latency_s"] == pytest.approx(seconds)
        assert each["reason"]
    assert chosen["fits"]
    # Times are compared in whole milliseconds.
    fair = [each for each in others if each["fits"] and each["mode"] != "dynamic"]
    assert all(each["latency_s"] > chosen["latency_s"] - 2e-3 for each in fair)
    assert (chosen["mode"] == "resident") == resident
    names = [stage["name"] for stage in chosen["stages"]]
    assert {"encode text", "denoise", "upsample", "refine", "decode video"} <= set(names)
    assert shown["machine"]["name"] == gpu
    assert shown["machine"]["host_memory"] == 64 * GIB
    assert [phase["steps"] for phase in shown["workload"]["phases"]] == [30, 3]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("flags", [[], ["--pipeline", "distilled", "--images", "1"]])
def test_the_flags_ask_for_the_plan(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    auto = planned(capsys, "--gpu", "rtx-4090", *flags)["chosen"]
    asked = planned(capsys, "--gpu", "rtx-4090", *flags, *auto["flags"].split())["chosen"]
    assert asked.pop("reason").startswith("asked for")
    del auto["reason"]
    assert asked == auto


@pytest.mark.slow
def test_a_named_mode_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--gpu", "h200", "--mode", "resident", "--device-memory", "24GiB"]
    err = refused(capsys, *flags)
    assert "resident does not fit" in err
    assert "GB more than the device has" in err
    advice = err.partition("This fits: ")[2].split()
    assert advice[0] == "--mode"
    assert planned(capsys, "--gpu", "h200", "--device-memory", "24GiB", *advice)["chosen"]["fits"]
    assert run(["plan", *flags, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "BudgetError"


def test_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--gpu", "rtx-4090", "--device-memory", "2GiB")
    assert "no plan fits. The smallest plan, --mode" in err


def test_what_is_given_replaces_the_card_s_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--device-memory", "30GiB", "--host-memory", "100GiB", "--pinned-memory", "90GB"]
    rates = ["--h2d", "10GB/s", "--disk", "3GB/s"]
    machine = planned(capsys, "--gpu", "rtx-4090", *given, *rates)["machine"]
    assert machine["device_memory"] == 30 * GIB
    assert machine["host_memory"] == 100 * GIB
    assert machine["pinned_memory"] == 90 * 10**9
    assert (machine["rates"]["h2d"], machine["rates"]["disk"]) == (10e9, 3e9)
    assert machine["origins"]["h2d"] == "given"


def test_of_this_machine_memory_is_a_budget(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def this_machine(model: str, rates: dict[str, float], devices: list[str]) -> Hardware:
        return card("h100", 128 * GIB, **rates)

    monkeypatch.setattr(plan_inputs, "this_machine", this_machine)
    shown = planned(capsys, "--device-memory", "40GiB", "--host-memory", "100GB", "--h2d", "20GB/s")
    assert shown["machine"]["device_memory"] > 40 * GIB
    assert (shown["limits"]["device"], shown["limits"]["host"]) == (40 * GIB, 100 * 10**9)
    assert shown["machine"]["rates"]["h2d"] == 20e9


@pytest.mark.slow
def test_this_machine_and_a_model_s_folder(
    demo_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shown = planned(capsys, "--model", str(demo_model), "--h2d", "7GB/s")
    assert shown["machine"]["unified"] is True
    assert shown["machine"]["origins"]["matmul"] == "measured"
    assert shown["machine"]["rates"]["h2d"] == 7e9
    assert shown["chosen"]["fits"]
    assert run(["plan", "--model", str(demo_model)]) == 0
    assert "plans may take" in capsys.readouterr().out


def test_what_is_said_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--resident-blocks", "2", "--place", "text_encoder=disk", "video_vae=snapshot"]
    shown = planned(capsys, "--gpu", "l40s", "--host-memory", "128GiB", *flags)
    for each in (shown["chosen"], *shown["alternatives"]):
        assert each["resident_blocks"] == 2
        assert each["places"]["text_encoder"] == "disk"
        assert each["places"]["video_vae"] == "snapshot"


def test_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--gpu", "4090"]) == 0
    out = capsys.readouterr().out
    for mode, policy in MODES:
        assert (f"snapshot {policy}" if mode == "snapshot" else mode) in out
    for words in (
        "machine: rtx-4090, 25.3 GB of device and 68.7 GB of host memory",
        "assumed: host to device 25 GB/s",
        "by data sheet: matrix products",
        "121 frames of 1536 × 1024; stage1: 30 steps",
        "the fastest of what fits",
        "to have it: --mode",
        "resident: does not fit:",
        "decode video",
    ):
        assert words in out
    (marked,) = [line for line in out.splitlines() if line.startswith("→")]
    assert marked.rstrip().endswith("yes")


def test_modes_of_no_use_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--gpu", "h200", "--pipeline", "one-stage"]) == 0
    out = capsys.readouterr().out
    assert "fused, snapshot aggressive, original, dynamic: left out" in out


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gpu", "rtx-4091"], "did you mean rtx-4090"),
        (["--gpu", "h200", "--h2d", "fast"], "--h2d takes bytes a second such as 25GB/s"),
        (["--gpu", "h200", "--disk", "0"], "--disk takes bytes a second"),
        (["--gpu", "h200", "--device-memory", "lots"], "--device-memory takes a size"),
        (["--gpu", "h200", "--height", "65"], "height: 65 is not a multiple of 64"),
        (["--gpu", "h200", "--images", "-1"], "--images: must be a whole number from 0"),
        (
            ["--gpu", "h200", "--pipeline", "three-stage"],
            "or distilled-one-stage, not 'three-stage'",
        ),
        (["--gpu", "h200", "--model", "nowhere"], "model folder nowhere does not exist"),
        (["--gpu", "h200", "--place", "engine=disk"], "no component 'engine' to place"),
        (["--gpu", "h200", "--place", "vocoder=streamed"], "vocoder cannot be streamed"),
        (["--gpu", "h200", "--place", "vocoder=here"], "place of vocoder 'here'"),
        (["--gpu", "h200", "--resident-blocks", "49"], "transformer has 48: give 0 to 48"),
        (["--gpu", "h200", "--merged-blocks", "49"], "transformer has 48: give 0 to 48"),
        (
            ["--gpu", "h200", "--mode", "fused", "--resident-blocks", "4"]
            + ["--place", "transformer=streamed"],
            "placed streamed, and 4 resident blocks",
        ),
        (["--gpu", "h200", "--mode", "resident", "--resident-blocks", "4"], "leave"),
    ],
)
def test_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, *flags)


@pytest.mark.slow
def test_svg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.svg"
    command = ["plan", "--gpu", "rtx-4090", "--svg", str(path)]
    assert run(command) == 0
    assert "wrote" in capsys.readouterr().out
    first = path.read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    path.write_text("mine")
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert run([*command, "--force", "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert path.read_bytes() == first
    assert [each.name for each in tmp_path.iterdir()] == ["plan.svg"]
    assert run(["plan", "--gpu", "h200", "--svg", str(tmp_path / "gone" / "plan.svg")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_several_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    video = ("--height", "512", "--width", "768")
    shown = planned(capsys, "--gpu", "h200", "x2", *video)
    assert shown["machine"]["devices"] == 2
    group = shown["group"]
    assert group.keys() == {"devices", "layouts", "together_s", "alone_s", "pays"}
    assert group["layouts"].keys() == {"stage1", "stage2"}
    assert all(each["rows"] * each["row"] == 2 for each in group["layouts"].values())
    assert group["together_s"] == shown["chosen"]["latency_s"] < group["alone_s"]
    assert group["pays"]
    assert 0 < shown["chosen"]["exchange_s"] < 0.2 * group["together_s"]
    assert run(["plan", "--gpu", "h200", "x2", *video]) == 0
    told = capsys.readouterr().out
    assert "machine: 2 × h200" in told
    assert "2 share the video's tokens" in told
    assert "times as fast" in told


@pytest.mark.slow
def test_what_gpus_hold_for_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--gpu", "h100-80gb", "x2", "--mode", "resident", "--place", "transformer=peer"]
    assert run(["plan", *flags, "--height", "512", "--width", "768"]) == 0
    told = capsys.readouterr().out
    assert "transformer: each GPU holds 37.1 GB for the others, and copies 37.1 GB" in told
    assert "no plan fits one" in told


@pytest.mark.slow
def test_passes_only(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--gpu", "h200", "x2", "--height", "512", "--width", "768", "--parallel", "guidance")
    shown = planned(capsys, *flags)
    by_phase = shown["group"]["layouts"]
    assert list(by_phase.values()) == [{"rows": 2, "row": 1}] * 2


def test_so_many_gpus_are_not_in_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert "x1 to x16" in refused(capsys, "--gpu", "h200", "x99")


def test_devices_are_this_machine_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert "as in x2" in refused(capsys, "--gpu", "h200", "--devices", "cuda:0", "cuda:1")


def test_weights_that_are_quantised(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = ("--gpu", "rtx-4090", "--host-memory", "64GiB")
    plain = planned(capsys, *card)["chosen"]
    quantised = planned(capsys, *card, "--weights", "nvfp4", "--text-weights", "gguf-q4_k_m")
    assert quantised["chosen"]["latency_s"] < plain["latency_s"]
    assert run(["plan", *card, "--weights", "fp3"]) == 2
    assert "fp8, fp8-plain, nvfp4" in capsys.readouterr().err
    assert run(["plan", *card, "--model", str(demo_model), "--weights", "fp8"]) == 2
    assert "say themselves how its weights are stored" in capsys.readouterr().err
