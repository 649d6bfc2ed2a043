"""Plans with products in float8: sizes, times, and what they agree with."""

from pathlib import Path

import pytest
import torch

from entracte.checkpoints.loading import component_spec
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.cli.main import run
from entracte.machine.cards import card
from entracte.planner.calibration import Calibration
from entracte.planner.costs import Costs, costs
from entracte.planner.model_profile import (
    TRANSFORMER,
    ModelFigures,
    figures_of,
    in_float8,
    published,
    with_weights,
)
from entracte.planner.transformer_work import TransformerMeter
from entracte.planner.workload import Workload
from entracte.residency import BASE, DeviceManager, Residency, WeightPhase, open_backend

BFLOAT16 = published("ltx-2.3")
LOAD = Workload.of_sizes(layers=48, pipeline="one-stage", height=512, width=768)


def prepared(model: ModelFigures, name: str = "h200") -> Costs:
    hardware, meter = card(name, 128 * 2**30), TransformerMeter.of(model)
    return costs(model, LOAD, (WeightPhase(BASE, 30),), hardware, Calibration(), meter)


def test_44_blocks_take_half_the_memory() -> None:
    units, small = BFLOAT16.units[TRANSFORMER], in_float8(BFLOAT16)
    halved = [
        unit
        for unit, (before, after) in enumerate(zip(units, small.units[TRANSFORMER], strict=True))
        if after < 0.51 * before
    ]
    assert halved == list(range(2, 46))
    assert small.stored[TRANSFORMER] == {unit: units[unit] for unit in halved}
    assert small.scratch > 0.99 * units[2]
    assert 0.85 < small.float8 < 0.95


def test_files_in_float8_are_used_as_they_are_stored() -> None:
    stored = with_weights(BFLOAT16, TRANSFORMER, "fp8")
    small = in_float8(stored, "fp8")
    assert small.stored[TRANSFORMER] == {}
    assert small.units[TRANSFORMER][2] == stored.stored[TRANSFORMER][2]


def test_loops_are_quicker_on_a_gpu() -> None:
    exact, small = prepared(BFLOAT16), prepared(in_float8(BFLOAT16))
    assert 0.55 < small.sweeps[0].block / exact.sweeps[0].block < 0.75


def test_an_open_model_has_the_sizes_of_its_device_manager(demo_model: Path) -> None:
    source = open_model(str(demo_model), ModelPaths(), distilled=False, precision="fp8")
    figures = figures_of(source, torch.bfloat16)
    backend = open_backend(torch.device("cpu"))
    spec = component_spec(
        source.components[TRANSFORMER], source.version, torch.device("cpu"), torch.bfloat16
    )
    with DeviceManager([spec], backend, Residency("fused")) as manager:
        held = manager.plan([WeightPhase(BASE)]).components[TRANSFORMER]
    largest = max(figures.units[TRANSFORMER][:-1])
    slots = [each for each in held.buffers if each.key.role == "slot"]
    assert {each.nbytes for each in slots} == {largest}
    assert [each.nbytes for each in held.buffers if each.key.role == "scratch"] == [figures.scratch]


def test_a_card_without_such_products_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--gpu", "a100-80gb", "--precision", "fp8"]) != 0
    assert "a100-80gb does not have" in capsys.readouterr().err
