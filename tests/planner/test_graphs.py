"""What captured graphs keep is in the plan, on the cards that use them."""

from functools import lru_cache

import pytest
import torch

from entracte.machine.cards import card
from entracte.models.kernels import Execution, execution
from entracte.models.kernels.calls import TEXT_BYTES
from entracte.models.kernels.graphs import pool_bytes
from entracte.planner.calibration import Calibration
from entracte.planner.costs import Costs, costs
from entracte.planner.forecast import weight_phases
from entracte.planner.model_profile import published
from entracte.planner.transformer_work import TransformerMeter
from entracte.planner.workload import Workload
from entracte.units import GIB

MODEL = published("ltx-2.3")
METER = TransformerMeter.of(MODEL)


@lru_cache
def typical(name: str, height: int, width: int, guidance_batch: int, graphs: bool) -> Costs:
    load = Workload.of_sizes(
        layers=48,
        height=height,
        width=width,
        on_gpu=True,
        defaults=MODEL.version.defaults,
        guidance_batch=guidance_batch,
    )
    phases = weight_phases("two-stage", load, MODEL)
    return costs(MODEL, load, phases, card(name, 64 * GIB), Calibration(), METER, graphs=graphs)


@pytest.mark.parametrize("name", ["h100-80gb", "rtx-pro-6000"])
def test_graphs_are_in_every_stage(name: str) -> None:
    """They stay for the next request."""
    without, found = (typical(name, 512, 768, 4, graphs) for graphs in (False, True))
    loops = [stage for stage, _ in found.stages if stage.phase is not None]
    assert all(loop.from_graphs for loop in loops)
    kept = sum(loop.held for loop in loops) + pool_bytes(max(loop.pooled for loop in loops))
    kept += TEXT_BYTES
    assert 0.8e9 < kept < 1.4e9
    for (plain, _), (captured, _) in zip(without.stages, found.stages, strict=True):
        assert captured.activations == plain.activations + kept


@pytest.mark.parametrize(
    ("name", "height", "width", "kept"),
    [("h200", 1024, 1536, TEXT_BYTES), ("rtx-4090", 512, 768, 0)],
)
def test_large_batches_have_only_those_of_text_and_small_cards_none(
    name: str, height: int, width: int, kept: int
) -> None:
    without, found = (typical(name, height, width, 4, graphs) for graphs in (False, True))
    assert [stage.activations for stage, _ in found.stages] == [
        stage.activations + kept for stage, _ in without.stages
    ]


def test_text_from_graphs_takes_what_was_measured() -> None:
    without, found = (typical("h200", 512, 768, 4, graphs) for graphs in (False, True))
    prompt = [
        {stage.name: seconds for stage, seconds in each.stages}["encode text"]
        for each in (without, found)
    ]
    assert 0.018 < prompt[1] < 0.025
    assert prompt[0] > 0.04


def test_with_graphs_the_host_is_no_limit() -> None:
    without, found = (typical("h200", 512, 768, 1, graphs) for graphs in (False, True))
    one_by_one = [
        {stage.name: seconds for stage, seconds in each.stages}["denoise"]
        for each in (without, found)
    ]
    assert one_by_one[1] < 0.8 * one_by_one[0]


def test_what_is_not_a_cuda_device_has_none() -> None:
    """Such as a simulated one, however much memory it is said to have."""
    assert execution(torch.device("cpu"), "auto", transformer=1) == Execution()
    assert not Execution().graphs
