from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from entracte.cli import plan_inputs
from entracte.cli.main import run
from entracte.config.wording import residency_flags, worded
from entracte.doctor.diagnosis import Check, Findings, GroupFindings, diagnose, examine
from entracte.errors import BudgetError, RequestError
from entracte.machine import Survey
from entracte.machine.cards import card
from entracte.machine.device import DeviceFacts, Link
from entracte.machine.hardware import Rates
from entracte.machine.host import HostFacts
from entracte.planner.decision import arguments
from entracte.planner.forecast import forecast, typical_costs
from entracte.planner.group import GroupGain
from entracte.planner.model_profile import published
from entracte.planner.prediction import Prediction
from entracte.residency.backends.host import HostBackend
from entracte.units import GIB, size

GB = 10**9

HOST = HostFacts(256 * GB, None, 250 * GB, GB, 0, 0, 8 * 2**20)


def on_gpu(name: str = "h100-80gb", device: str = "NVIDIA H100 80GB HBM3") -> Findings:
    """A machine that is as the data sheets say, with all rates measured."""
    made = card(name, 250 * GB)
    hardware = replace(made, origins=dict.fromkeys(asdict(made.rates), "measured"))
    facts = DeviceFacts(
        device, made.device_memory, made.device_memory, 0, (9, 0), "570.86", link=Link(5, 16)
    )
    return Findings(
        survey=Survey(hardware, HOST, facts, {}, False),
        on_gpu=True,
        gpu_seen=True,
        nvidia_driver="570.86",
        torch_version="2.13.0+cu128",
        torch_cuda="12.8",
        triton=None,
        model_bytes=78 * GB,
        folder_given=True,
        figures=published("ltx-2.3"),
        computing_s=15.2,
        full_size="no plan fits",
    )


def on_cpu() -> Findings:
    found = on_gpu()
    survey = replace(
        found.survey,
        hardware=replace(found.hardware, unified=True),
        device=DeviceFacts("a processor"),
    )
    return replace(
        found, survey=survey, on_gpu=False, gpu_seen=False, nvidia_driver=None, torch_cuda=None
    )


def with_survey(found: Findings, **changes: Any) -> Findings:
    return replace(found, survey=replace(found.survey, **changes))


def with_hardware(found: Findings, **changes: Any) -> Findings:
    return with_survey(found, hardware=replace(found.hardware, **changes))


def with_rates(found: Findings, **changes: float) -> Findings:
    return with_hardware(found, rates=replace(found.hardware.rates, **changes))


def with_device(found: Findings, **changes: Any) -> Findings:
    return with_survey(found, device=replace(found.survey.device, **changes))


def with_host(found: Findings, **changes: Any) -> Findings:
    return with_survey(found, host=replace(found.survey.host, **changes))


def checked(found: Findings, name: str) -> Check:
    (check,) = [each for each in diagnose(found) if each.name == name]
    return check


def verdicts(found: Findings) -> set[str]:
    return {check.verdict for check in diagnose(found)}


def test_a_good_machine_is_good() -> None:
    fits = prediction()
    assert verdicts(replace(on_gpu(), full_size=fits)) == {"good"}


def test_checks_have_different_names_and_say_something() -> None:
    for found in (on_gpu(), on_cpu()):
        checks = diagnose(found)
        assert len({check.name for check in checks}) == len(checks)
        assert all(check.found for check in checks)


def test_what_is_of_a_gpu_is_not_said_of_a_cpu() -> None:
    names = {check.name for check in diagnose(on_cpu())}
    assert names.isdisjoint({"driver", "Triton", "PCIe link", "pinned memory", "device memory"})
    assert names < {check.name for check in diagnose(on_gpu())}


# The full-size model.


@cache
def prediction() -> Prediction:
    """The plan for a usual video on a good machine."""
    return forecast(on_gpu().hardware)


def test_a_plan_that_fits_is_told_with_its_flags() -> None:
    check = checked(replace(on_gpu(), full_size=prediction()), "full-size model")
    assert (check.found, check.verdict) == ("fits", "good")
    flags = residency_flags(arguments(prediction()))
    assert f"with {flags}. `entracte plan --height 512 --width 768`" in check.advice
    assert size(prediction().peak_device_bytes) in check.advice
    from_disk = replace(prediction(), way=replace(prediction().way, home="disk"))
    check = checked(replace(on_gpu(), full_size=from_disk), "full-size model")
    assert (check.found, check.verdict) == ("fits", "warning")
    assert "reads the transformer from the disk" in check.advice


def test_what_does_not_fit_is_told_in_the_planners_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Doctor and plan say the same smallest plan of the same machine."""
    small = replace(on_cpu().hardware, device_memory=10 * GB, host_memory=10 * GB)
    with pytest.raises(BudgetError, match="The smallest plan, .* of memory") as refused:
        forecast(small)
    check = checked(replace(on_cpu(), full_size=worded(refused.value)), "full-size model")
    assert (check.found, check.verdict) == ("does not fit", "warning")
    assert worded(refused.value) in check.advice
    monkeypatch.setattr(plan_inputs, "this_machine", lambda *_: small)
    assert run(["plan", "--height", "512", "--width", "768"]) == 2
    assert capsys.readouterr().err == f"entracte: {worded(refused.value)}\n"


# The device.


def test_no_gpu_is_a_warning_and_says_how_long_a_video_takes() -> None:
    slow = with_rates(on_cpu(), matmul=200e9).hardware
    check = checked(replace(on_cpu(), computing_s=typical_costs(slow).computing), "device")
    assert check.verdict == "warning"
    assert "9 h 5 min" in check.advice
    assert "--device cuda" in checked(replace(on_cpu(), gpu_seen=True), "device").advice


@pytest.mark.parametrize(("cuda", "advice"), [(None, "for CPUs"), ("13.0", "for CUDA 13.0")])
def test_a_driver_without_a_gpu_for_torch(cuda: str | None, advice: str) -> None:
    check = checked(replace(on_cpu(), nvidia_driver="550", torch_cuda=cuda), "device")
    assert check.verdict == "problem"
    assert advice in check.advice


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("2.11.0", "good"), ("3.0", "good"), ("2.10.1+cu128", "problem"), ("2.9", "problem")],
)
def test_torch_version(version: str, verdict: str) -> None:
    assert checked(replace(on_gpu(), torch_version=version), "torch").verdict == verdict


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((7, 5), "warning"), ((8, 0), "good"), ((12, 0), "good"), (None, "warning")],
)
def test_compute_capability(version: tuple[int, int] | None, verdict: str) -> None:
    assert (
        checked(with_device(on_gpu(), capability=version), "compute capability").verdict == verdict
    )


def test_triton() -> None:
    check = checked(replace(on_gpu(), triton="No module named 'triton'"), "Triton")
    assert check.verdict == "warning"
    assert "No module" in check.found


@pytest.mark.parametrize(
    ("link", "verdict"),
    [
        (Link(5, 16), "good"),
        (Link(4, 8), "good"),
        (Link(4, 4), "warning"),
        (Link(3, 16), "warning"),
        (None, "good"),
    ],
)
def test_link(link: Link | None, verdict: str) -> None:
    assert checked(with_device(on_gpu(), link=link), "PCIe link").verdict == verdict


def test_a_narrow_link_says_what_it_costs() -> None:
    check = checked(with_device(on_gpu(), link=Link(3, 4)), "PCIe link")
    assert check.found == "generation 3, x4"
    assert "3.1 GB a second" in check.advice
    assert "12.17 s a pass" in check.advice


# The host.


def test_a_limit_and_unknown_memory_are_said() -> None:
    limited = with_host(on_gpu(), total=100 * GB, limit=100 * GB)
    assert "control group" in checked(limited, "host memory").found
    unknown = checked(with_host(on_gpu(), total=None), "host memory")
    assert unknown.verdict == "warning"
    assert "unknown" in unknown.found


@pytest.mark.parametrize(
    ("limit", "fits", "verdict"),
    [
        (None, False, "good"),
        (0, True, "warning"),
        (38 * GB, True, "good"),
        (38 * GB, False, "warning"),
    ],
)
def test_pinned_memory(limit: int | None, fits: bool, verdict: str) -> None:
    """A limit is judged by whether the planner finds a plan within it."""
    found = replace(on_gpu(), full_size=prediction() if fits else "no plan fits")
    assert checked(with_hardware(found, pinned_memory=limit), "pinned memory").verdict == verdict


@pytest.mark.parametrize(
    ("swap", "used", "verdict"),
    [
        (0, 0, "good"),
        (8 * GB, GB - 1, "good"),
        (8 * GB, GB, "warning"),
        (None, None, "good"),
    ],
)
def test_swap(swap: int | None, used: int | None, verdict: str) -> None:
    assert checked(with_host(on_gpu(), swap=swap, swap_used=used), "swap").verdict == verdict


# Rates.

TITLES = {
    "matmul": "matrix products",
    "merge": "merges",
    "device_copy": "copies on the device",
    "h2d": "host to device",
    "d2h": "device to host",
}


@pytest.mark.parametrize("name", TITLES)
def test_rates_below_sixty_percent_of_the_cards(name: str) -> None:
    should: float = asdict(on_gpu().hardware.rates)[name]
    enough = checked(with_rates(on_gpu(), **{name: 0.601 * should}), TITLES[name])
    assert enough.verdict == "good"
    assert "60%" in enough.found
    low = checked(with_rates(on_gpu(), **{name: 0.599 * should}), TITLES[name])
    assert low.verdict == "warning"
    assert "See that" in low.advice


@pytest.mark.parametrize("name", TITLES)
def test_an_unknown_card_and_a_cpu_have_nothing_to_reach(name: str) -> None:
    unknown = checked(
        with_rates(with_device(on_gpu(), name="NVIDIA New"), **{name: 1.0}), TITLES[name]
    )
    assert unknown.verdict == "good"
    assert "not in our table" in unknown.advice
    assert checked(with_rates(on_cpu(), **{name: 1.0}), TITLES[name]).verdict == "good"


@pytest.mark.parametrize("name", [*TITLES, "pageable"])
def test_what_was_not_measured_is_not_called_good(name: str) -> None:
    found = with_survey(on_gpu(), not_measured={name: "it is broken"})
    check = checked(found, {**TITLES, "pageable": "pageable copies"}[name])
    assert check.verdict == ("problem" if name == "matmul" else "warning")
    assert "assumed" in check.found
    assert "it is broken" in check.advice


@pytest.mark.parametrize(("rate", "verdict"), [(1e9, "good"), (0.99e9, "warning")])
def test_pageable(rate: float, verdict: str) -> None:
    assert checked(with_rates(on_gpu(), pageable=rate), "pageable copies").verdict == verdict


@pytest.mark.parametrize(
    ("rate", "verdict", "takes"),
    [(7.8e9, "good", "78.0 GB takes 10.00 s"), (0.1e9, "warning", "takes 13 min 0 s")],
)
def test_disk(rate: float, verdict: str, takes: str) -> None:
    check = checked(with_rates(on_gpu(), disk=rate), "disk")
    assert check.verdict == verdict
    assert takes in check.advice
    assert ("local SSD" in check.advice) == (verdict == "warning")


def test_a_disk_that_was_not_measured() -> None:
    origins = dict(on_gpu().hardware.origins) | {"disk": "assumed"}
    found = with_hardware(on_gpu(), origins=origins)
    assert "--model" in checked(replace(found, folder_given=False), "disk").advice
    refused = with_survey(found, not_measured={"disk": "it cannot be read"})
    assert "it cannot be read" in checked(refused, "disk").advice
    assert "in memory" in checked(with_survey(on_gpu(), disk_cached=True), "disk").advice


def test_no_machine_that_works_is_a_problem() -> None:
    """However small and slow it is."""
    rates = Rates(*([1e6] * 7))
    small = with_hardware(
        on_gpu(), device_memory=GIB, host_memory=GIB, rates=rates, pinned_memory=0
    )
    small = with_device(small, capability=(7, 0), link=Link(1, 1), name="NVIDIA Old")
    assert "problem" not in verdicts(small)
    assert "problem" not in verdicts(with_hardware(on_cpu(), host_memory=GIB, rates=rates))


# All of it.


@pytest.mark.slow
def test_this_machine(demo_model: Path) -> None:
    found = examine(HostBackend(), torch.float32, demo_model)
    assert found.model_bytes == sum(
        path.stat().st_size for path in demo_model.rglob("*.safetensors")
    )
    assert "problem" not in verdicts(replace(found, nvidia_driver=None))


@pytest.mark.slow
def test_this_machine_for_the_published_model() -> None:
    assert examine(HostBackend(), torch.float32).model_bytes == published("ltx-2.3").nbytes


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a folder"):
        examine(HostBackend(), torch.float32, tmp_path / "gone")


def several(*names: str, copies: float = 390e9) -> Findings:
    hardware = card("h100-80gb", 250 * GB, len(names))
    assert hardware.peers is not None
    peers = replace(hardware.peers, copy=copies)
    gain = GroupGain(len(names), (), together_s=6.0, alone_s=10.0)
    return replace(on_gpu(), group=GroupFindings(names, peers, True, gain))


def test_several_gpus() -> None:
    found = several("NVIDIA H100", "NVIDIA H100")
    gpus = checked(found, "GPUs")
    assert gpus.verdict == "good"
    assert gpus.found == "2 × NVIDIA H100; all reach each other's memory"
    assert checked(found, "between GPUs").found == "390 GB/s (measured)"
    together = checked(found, "together")
    assert "1.67 times as fast" in together.found
    assert together.advice == "To use them: --devices cuda:0 cuda:1."
    assert checked(several("NVIDIA H100", "NVIDIA L4"), "GPUs").verdict == "warning"
    assert "guidance" in checked(several("A", "A", copies=9e9), "between GPUs").advice


def test_one_gpu_has_no_others() -> None:
    names = {check.name for check in diagnose(on_gpu())}
    assert not names & {"GPUs", "between GPUs", "together"}
