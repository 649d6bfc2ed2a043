"""A model's figures are those of the weights that the device manager holds."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks.published_figures import published_figures

from entracte.checkpoints.loading import component_spec
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.sources import ModelSource
from entracte.errors import RequestError
from entracte.pipeline.lora_cache import Loras
from entracte.planner.model_profile import (
    DISTILLED,
    ModelFigures,
    adapter_figures,
    figures_of,
    from_json,
    published,
    to_json,
)
from entracte.residency import Adapter, DeviceManager, Residency, WeightPhase, WeightSet
from entracte.residency.backends.host import HostBackend

CPU = torch.device("cpu")
DTYPES = [torch.bfloat16, torch.float32]


@pytest.fixture(scope="module")
def source(demo_model: Path) -> ModelSource:
    return open_model(str(demo_model), ModelPaths(), distilled=False)


@pytest.fixture(scope="module")
def figures(source: ModelSource) -> ModelFigures:
    return figures_of(source, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_units_are_what_the_device_manager_lays_out(
    source: ModelSource, dtype: torch.dtype
) -> None:
    figures = figures_of(source, dtype)
    loras = Loras(source.components)
    assert source.distilled_lora is not None
    lora = loras.open(source.distilled_lora[0].path)
    manager = DeviceManager(
        [component_spec(each, source.version, CPU, dtype) for each in source.components.values()],
        HostBackend(),
        Residency("fused"),
        adapted="transformer",
        adapters=loras.adapter,
    )
    plan = manager.plan([WeightPhase(WeightSet((Adapter(lora.name, 1.0),)))])
    assert figures.units.keys() == plan.components.keys()
    for name, component in plan.components.items():
        found = {
            buffer.key.index: buffer.nbytes
            for buffer in component.buffers
            if (buffer.key.tier, buffer.key.role) == ("device", "weights")
        }
        assert figures.units[name] == tuple(found[unit] for unit in sorted(found))
    factors = {
        buffer.key.index: buffer.nbytes
        for buffer in plan.components["transformer"].buffers
        if buffer.key.role == "factors"
    }
    adapter = figures.adapters[DISTILLED]
    assert adapter.nbytes == tuple(factors.get(unit, 0) for unit in range(len(adapter.nbytes)))
    assert adapter == adapter_figures("transformer", lora.changes("transformer"), figures)


@pytest.mark.slow
def test_merging_takes_two_operations_for_every_number_of_the_product(
    source: ModelSource, figures: ModelFigures
) -> None:
    assert source.distilled_lora is not None
    lora = Loras(source.components).open(source.distilled_lora[0].path)
    by_hand = [0] * len(figures.units["transformer"])
    for name, change in lora.changes("transformer").items():
        parts = name.split(".")
        unit = int(parts[1]) if parts[0] == "transformer_blocks" else -1
        down, up = change.tensors["down"], change.tensors["up"]
        by_hand[unit] += 2 * down.shape[0] * up.shape[0] * down.shape[1]
    assert figures.adapters[DISTILLED].flops == tuple(by_hand)


def test_they_survive_being_written(figures: ModelFigures) -> None:
    assert from_json(json.loads(json.dumps(to_json(figures)))) == figures


def test_the_published_model_has_its_published_sizes() -> None:
    model = published("ltx-2.3")
    units = model.units
    assert len(units["transformer"]) == 49
    assert sum(units["transformer"]) == pytest.approx(37.98e9, rel=1e-3)
    assert set(units["transformer"][:48]) == {units["transformer"][0]}
    assert units["transformer"][0] == pytest.approx(0.773e9, rel=1e-3)
    assert sum(units["text_encoder"]) == pytest.approx(23.53e9, rel=1e-3)
    assert sum(units["connectors"]) == pytest.approx(6.34e9, rel=1e-3)
    lora = model.adapters[DISTILLED]
    assert sum(lora.nbytes) == pytest.approx(7.6e9, rel=2e-3)
    assert sum(lora.flops) == pytest.approx(14.6e12, rel=5e-3)
    assert published("Lightricks/LTX-2.3") == model


def test_other_names_are_refused() -> None:
    with pytest.raises(RequestError, match=r"'ltx-9'; known: ltx-2\.3, Lightricks/LTX-2\.3"):
        published("ltx-9")


@pytest.mark.slow
def test_the_published_figures_are_up_to_date() -> None:
    shipped, now = to_json(published("ltx-2.3")), to_json(published_figures())
    laws, traced = shipped.pop("costs"), now.pop("costs")
    assert shipped == now
    assert laws.keys() == traced.keys()
    for name, law in laws.items():
        assert law == pytest.approx(traced[name], rel=1e-3), name
