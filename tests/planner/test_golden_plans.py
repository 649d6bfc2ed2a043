"""Plans for well-known cards, which people looked at: a change of any is a decision, not a slip.

After such a decision: `python -m tests.planner.test_golden_plans` writes them anew.
"""

from functools import lru_cache
from pathlib import Path

import pytest

from entracte.machine.cards import card
from entracte.planner.calibration import Calibration
from entracte.planner.costs import costs
from entracte.planner.decision import describe
from entracte.planner.limits import limits_of
from entracte.planner.model_profile import ModelFigures, published, with_weights
from entracte.planner.prediction import predict
from entracte.planner.search import Search
from entracte.planner.transformer_work import TransformerMeter
from entracte.planner.workload import Workload
from entracte.residency import BASE, Adapter, WeightPhase, WeightSet
from entracte.residency.policy import Residency

GOLDEN = Path(__file__).parent / "golden_plans.txt"
CARDS = (
    "h200",
    "h100-80gb",
    "a100-80gb",
    "a100-40gb",
    "l40s",
    "l4",
    "rtx-pro-6000",
    "rtx-6000-ada",
    "rtx-5090",
    "rtx-4090",
    "rtx-3090",
    "rtx-5080",
)
HOSTS = (32, 64, 128)

# Cards of 8 to 32 GB, for which bfloat16 is too much.
QUANTISED = Path(__file__).parent / "golden_plans_quantised.txt"
SMALL_CARDS = ("rtx-4060", "rtx-4070", "rtx-5080", "rtx-4090", "rtx-5090")
SMALL_HOSTS = (16, 32, 64)
WEIGHTS = ("fp8", "nvfp4", "gguf-q4_k_m")
PHASES = (
    WeightPhase(BASE, 30),
    WeightPhase(WeightSet((Adapter("distilled", 1.0),)), 3),
)
AUTO = Residency("auto")
MODEL = published("ltx-2.3")
TRANSFORMER = TransformerMeter.of(MODEL)


def plan(name: str, gibibytes: int, model: ModelFigures = MODEL) -> str:
    """The plan for 768x512 and 121 frames."""
    load = Workload.of_sizes(layers=48, height=512, width=768, on_gpu=True)
    hardware = card(name, gibibytes * 2**30)
    c = costs(model, load, PHASES, hardware, Calibration(), TRANSFORMER)
    best = Search(c, AUTO, limits_of(hardware, AUTO)).best()
    if best is None:
        return "none"
    p = predict(c, *best)
    away = sorted(f"{each}={place}" for each, place in p.places.items() if place != "resident")
    files = ", from files" if p.way.home == "disk" else ""
    times = f"{p.latency_s:.1f} s, waits {p.stall_s + p.switch_s:.1f} s"
    memory = f"{p.peak_device_bytes / 1e9:.1f} GB, host {p.peak_host_bytes / 1e9:.1f} GB"
    return "; ".join([describe(p) + files, times, memory, " ".join(away) or "all resident"])


def golden() -> dict[tuple[str, int], str]:
    found = {}
    for line in GOLDEN.read_text().splitlines():
        name, gibibytes, wanted = line.split(maxsplit=2)
        found[name, int(gibibytes)] = wanted
    return found


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CARDS)
def test_plans_are_those_that_were_looked_at(name: str) -> None:
    wanted = golden()
    assert {host: plan(name, host) for host in HOSTS} == {
        host: wanted[name, host] for host in HOSTS
    }


@pytest.mark.sampled(1)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", SMALL_CARDS)
def test_plans_of_quantised_weights_are_those_that_were_looked_at(name: str, weights: str) -> None:
    found = [quantised_line(name, weights, host) for host in SMALL_HOSTS]
    assert set(found) <= set(QUANTISED.read_text().splitlines())


def quantised_line(name: str, weights: str, host: int) -> str:
    """With the text encoder in the same format."""
    return f"{weights} {name} {host} {plan(name, host, quantised_model(weights))}"


@lru_cache
def quantised_model(weights: str) -> ModelFigures:
    return with_weights(with_weights(MODEL, "transformer", weights), "text_encoder", weights)


@pytest.mark.parametrize("name", ["h200", "b200"])
@pytest.mark.parametrize("pipeline", ["one-stage", "two-stage"])
def test_nothing_is_offloaded_where_there_is_memory(name: str, pipeline: str) -> None:
    load = Workload.of_sizes(layers=48, pipeline=pipeline, height=512, width=768)
    hardware = card(name, 128 * 2**30)
    phases = PHASES[: len(load.phases)]
    c = costs(MODEL, load, phases, hardware, Calibration(), TRANSFORMER)
    best = Search(c, AUTO, limits_of(hardware, AUTO)).best()
    assert best is not None
    prediction = predict(c, *best)
    assert set(prediction.places.values()) == {"resident"}
    assert prediction.way.resident == 48
    assert prediction.peak_host_bytes == 0
    assert prediction.stall_s + prediction.switch_s < 1e-6


def test_a_card_is_never_refused_for_a_small_video() -> None:
    hardware = card("rtx-5080", 64 * 2**30)
    load = Workload.of_sizes(layers=48, height=256, width=384, num_frames=25)
    c = costs(MODEL, load, PHASES, hardware, Calibration(), TRANSFORMER)
    assert Search(c, AUTO, limits_of(hardware, AUTO)).best() is not None


def main() -> None:
    lines = [f"{name} {host} {plan(name, host)}" for name in CARDS for host in HOSTS]
    GOLDEN.write_text("\n".join(lines) + "\n")
    print(GOLDEN.read_text())
    lines = [
        quantised_line(name, weights, host)
        for weights in WEIGHTS
        for name in SMALL_CARDS
        for host in SMALL_HOSTS
    ]
    QUANTISED.write_text("\n".join(lines) + "\n")
    print(QUANTISED.read_text())


if __name__ == "__main__":
    main()
