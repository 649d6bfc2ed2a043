"""A plan in place is left only for one that saves more than moving to it takes."""

from dataclasses import replace

import pytest

from entracte.machine.cards import card
from entracte.planner.candidates import Way
from entracte.planner.decision import Decision, Option
from entracte.planner.limits import DEVICE_RESERVE, limits_of
from entracte.planner.model_profile import published
from entracte.planner.moving import PINNED, is_worth_moving, moving_seconds
from entracte.planner.planner import Measured, Planner
from entracte.planner.prediction import predict
from entracte.planner.workload import Workload
from entracte.residency import BASE, Adapter, Residency, WeightPhase, WeightSet

from .simulation import SIDE, machine, two_stage

BLOCKS, BLOCK, OUTSIDE = 8, 2 * SIDE * SIDE, 4 * SIDE * SIDE
AUTO = Residency("auto")
LOAD = Workload.of_sizes(layers=48, height=512, width=768, on_gpu=True)
PHASES = (WeightPhase(BASE, 30), WeightPhase(WeightSet((Adapter("distilled", 1.0),)), 3))


class TestSeconds:
    def test_nothing_moves_to_the_same_plan(self) -> None:
        c = two_stage(BLOCKS, machine(0.1), (0.1, 0.1)).costs()
        plan = predict(c, Way("snapshot", "low-vram", 4, 0), {})
        assert moving_seconds(c, plan, plan) == 0.0

    def test_both_sets_are_pinned_for_a_snapshot(self) -> None:
        c = two_stage(BLOCKS, machine(0.1), (0.1, 0.1)).costs()
        resident = predict(c, Way("resident", "low-vram", BLOCKS, 0), {})
        snapshot = predict(c, Way("snapshot", "low-vram", BLOCKS, 0), {})
        pinned = 2 * (BLOCKS * BLOCK + OUTSIDE)
        assert moving_seconds(c, resident, snapshot) == pytest.approx(pinned / PINNED)

    def test_blocks_that_become_resident_come_over_the_link(self) -> None:
        c = two_stage(BLOCKS, machine(0.1), (0.1, 0.1)).costs()
        fewer = predict(c, Way("snapshot", "low-vram", 3, 0), {})
        more = predict(c, Way("snapshot", "low-vram", 5, 0), {})
        assert moving_seconds(c, fewer, more) >= 2 * 0.1
        assert moving_seconds(c, fewer, more) <= 5 * 0.1

    def test_other_components_count_too(self) -> None:
        c = two_stage(BLOCKS, machine(0.1), (0.1, 0.1)).costs()
        way = Way("resident", "low-vram", BLOCKS, 0)
        brought, held = predict(c, way, {"text": "snapshot"}), predict(c, way, {})
        arrives = 3 * BLOCK + OUTSIDE
        assert moving_seconds(c, brought, held) == pytest.approx(arrives / c.hardware.rates.h2d)


@pytest.mark.parametrize(
    ("saved", "moving", "worth"),
    [(0.1, 0.0, False), (0.1, 12.0, False), (1.0, 9.0, True), (1.0, 12.0, False)],
)
def test_what_is_saved_must_exceed_what_moving_takes(
    saved: float, moving: float, worth: bool
) -> None:
    c = two_stage(BLOCKS, machine(0.1), (0.1, 0.1)).costs()
    found = predict(c, Way("resident", "low-vram", BLOCKS, 0), {})
    better = replace(found, latency_s=10.0)
    assert is_worth_moving(replace(found, latency_s=10.0 + saved), better, moving) == worth


class TestOnAnH100:
    """With 80 GB, on which `auto` once moved for 12 s to gain 0.1 s."""

    def decide(self, in_place: Way | None, measured: bool = False) -> Decision:
        model = published("ltx-2.3")
        planner = Planner(model, card("h100-80gb", 128 * 2**30))
        if in_place is not None:
            prediction = predict(planner.costs(LOAD, PHASES, {}), in_place, {})
            limits = limits_of(planner.hardware, AUTO)
            standing = Decision(Option(prediction, True, ""), (), AUTO, limits)
            planner.adopt(AUTO, standing)
            if measured:
                # 0.9 GB more than was predicted.
                seconds = {stage.name: 0.0 for stage in prediction.stages}
                for stage in prediction.stages:
                    seconds[stage.name] += stage.seconds
                peak = prediction.peak_device_bytes + 900_000_000
                planner.learn(standing, Measured(seconds, peak))
        return planner.decide(LOAD, PHASES, {}, AUTO)

    def test_blocks_are_not_streamed_where_they_fit(self) -> None:
        prediction = self.decide(None).chosen.prediction
        assert prediction.way == Way("snapshot", "low-vram", 48, 0)

    @pytest.mark.parametrize(("resident", "measured"), [(34, 0.2835), (29, 0.2972)])
    def test_sweeps_beside_copies_take_what_was_measured(
        self, resident: int, measured: float
    ) -> None:
        """By docs/reference/measurements.md; with 29, all of the link is needed."""
        planner = Planner(published("ltx-2.3"), card("h100-80gb", 128 * 2**30))
        c = planner.costs(LOAD, PHASES, {})
        found = predict(c, Way("snapshot", "aggressive", resident, 0), {})
        denoise = next(stage for stage in found.stages if stage.name == "denoise")
        ahead = found.switch_s if resident == 29 else 0.0  # what the link did not bring in the loop
        assert (denoise.seconds + ahead) / 30 == pytest.approx(measured, rel=0.02)

    def test_a_plan_that_is_as_good_is_kept(self) -> None:
        fused = Way("fused", "low-vram", 29, 14)
        decision = self.decide(fused)
        assert decision.chosen.prediction.way == fused
        assert "in place already: snapshot low-vram, m = 48 would save" in decision.chosen.reason

    def test_so_is_one_whose_peak_was_measured_a_little_higher(self) -> None:
        fused = Way("fused", "low-vram", 29, 14)
        share, fixed = DEVICE_RESERVE
        decision = self.decide(fused, measured=True)
        assert decision.chosen.prediction.way == fused
        used = decision.chosen.prediction.peak_device_bytes
        memory = card("h100-80gb", 2**37).device_memory
        assert memory * (1 - share) - fixed < used < memory - (memory * share + fixed) / 2

    def test_a_plan_that_waits_for_files_is_left(self) -> None:
        decision = self.decide(Way("original", "low-vram", 10, 0, "disk"))
        assert decision.chosen.prediction.way == Way("snapshot", "low-vram", 48, 0)

    def test_what_a_first_step_took_longer_is_not_learned(self) -> None:
        """It compiles and captures; the later ones are like those of the next request."""
        planner = Planner(published("ltx-2.3"), card("h100-80gb", 128 * 2**30))
        decision = planner.decide(LOAD, PHASES, {}, AUTO)
        stages = {each.name: each for each in decision.chosen.prediction.stages}
        once = 2.0
        took = {"denoise": stages["denoise"].seconds - stages["denoise"].stall_s + once}
        planner.learn(decision, Measured(took, once={"denoise": once}))
        assert planner.calibration.corrections["denoise"] == pytest.approx(1.0)
        planner.learn(decision, Measured(took))
        assert planner.calibration.corrections["denoise"] > 1.1
