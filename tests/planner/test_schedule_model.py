"""Predicted times are those that the device manager takes on the simulated accelerator."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entracte.planner.candidates import Way
from entracte.planner.latency import latency
from entracte.planner.prediction import predict
from entracte.planner.schedule_model import Held
from entracte.residency.policy import Place, Residency

from .simulation import RANK, SIDE, machine, two_stage

MERGE_FLOPS = 2.0 * RANK * SIDE * SIDE
BLOCKS = 24

# Seconds to copy a block, to merge one, and to compute one in both phases; and between the loops.
MACHINES = {
    "copies are hidden": (0.02, 0.005, (0.1, 0.1), 0.1),
    "a set cannot be swapped in one sweep": (0.1, 0.005, (0.05, 0.08), 0.02),
    "the link is slower than both loops": (0.15, 0.02, (0.1, 0.05), 0.02),
    "the link is as fast as the loops": (0.1, 0.01, (0.11, 0.09), 0.05),
}
WAYS = (
    Way("resident", "low-vram", 24, 0),
    Way("snapshot", "low-vram", 24, 0),
    Way("snapshot", "low-vram", 15, 0),
    Way("snapshot", "low-vram", 0, 0),
    Way("snapshot", "aggressive", 24, 0),
    Way("snapshot", "aggressive", 12, 0),
    Way("fused", "low-vram", 24, 0),
    Way("fused", "low-vram", 24, 10),
    Way("fused", "low-vram", 15, 18),
    Way("fused", "low-vram", 6, 0),
    Way("fused", "low-vram", 12, 4, "disk"),
    Way("snapshot", "low-vram", 24, 0, "disk"),
    Way("original", "low-vram", 24, 0),
    Way("original", "low-vram", 12, 0),
)
PLACES: dict[str, dict[str, Place]] = {
    "all on the device": {},
    "all brought": {"text": "streamed", "vae": "snapshot", "upsampler": "snapshot"},
    "from files": {"text": "disk", "vae": "disk"},
}


def slow(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("speeds", "places"),
    [
        slow("copies are hidden", "all brought"),
        slow("copies are hidden", "from files"),
        ("a set cannot be swapped in one sweep", "all brought"),
        slow("a set cannot be swapped in one sweep", "all on the device"),
        slow("the link is slower than both loops", "all on the device"),
        slow("the link is as fast as the loops", "all brought"),
    ],
)
def test_every_mode_to_a_hundredth(speeds: str, places: str) -> None:
    link, merge, seconds, gap = MACHINES[speeds]
    pipeline = two_stage(
        BLOCKS, machine(link, MERGE_FLOPS / merge), seconds, steps=(30, 3), gap=gap
    )
    c = pipeline.costs()
    misses = {}
    for way in WAYS:
        wanted = way.residency(PLACES[places], Residency())
        taken, device, planned, planned_host = pipeline.simulate(wanted)
        predicted = latency(c, Held.of(c.plan(way)), PLACES[places])
        misses[way] = abs(predicted / taken - 1)
        prediction = predict(c, way, PLACES[places])
        assert prediction.latency_s == pytest.approx(predicted)
        assert prediction.stall_s + prediction.switch_s + c.computing == pytest.approx(predicted)
        assert device <= prediction.peak_device_bytes == planned
        assert prediction.peak_host_bytes == planned_host
    bounds = {"host": 0.01, "disk": 0.015}
    assert {way: miss for way, miss in misses.items() if miss > bounds[way.home]} == {}


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 6)
@given(
    st.floats(0.01, 0.3),
    st.floats(0.0005, 0.02),
    st.tuples(st.floats(0.02, 0.2), st.floats(0.02, 0.2)),
    st.sampled_from(WAYS),
)
def test_any_machine_to_a_few_hundredths(
    link: float, merge: float, seconds: tuple[float, float], way: Way
) -> None:
    pipeline = two_stage(BLOCKS, machine(link, MERGE_FLOPS / merge), seconds, steps=(20, 3))
    taken, *_ = pipeline.simulate(way.residency({}, Residency()))
    c = pipeline.costs()
    assert latency(c, Held.of(c.plan(way)), {}) == pytest.approx(taken, rel=0.03)
