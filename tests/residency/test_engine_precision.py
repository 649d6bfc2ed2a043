"""Precision fp8: other bits than the exact model's, and the same ones in every mode."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from entracte import Engine, Residency
from entracte.errors import CheckpointError, RequestError, ResidencyError
from entracte.models.float8 import FLOAT8
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator
from entracte.synthetic.demo import CHECKPOINT, write_demo_model

from .test_engine_residency import distance, latents, same

WAYS = {
    "fused": Residency("fused"),
    "fused, dials": Residency("fused", resident_blocks=1, merged_blocks=2),
    "low-vram": Residency("snapshot", resident_blocks=1),
    "aggressive": Residency("snapshot", snapshot_policy="aggressive"),
    "original": Residency("original"),
    "resident, disk": Residency("resident", places={"transformer": "disk"}),
}
LINEAR = re.compile(r"transformer_blocks\.[12]\..*\.(weight)$")


def scaled(folder: Path, inputs: bool = True, full_precision: bool = False) -> Path:
    """The demonstration model, linears of two of its blocks as the official fp8 file has them."""
    write_demo_model(folder)
    with safe_open(folder / CHECKPOINT, "pt") as file:
        metadata = file.metadata()
    tensors = {}
    for key, tensor in load_file(folder / CHECKPOINT).items():
        tensors[key] = tensor
        if not LINEAR.search(key) or tensor.ndim != 2 or "gate" in key:
            continue
        layer, scale = key.removesuffix(".weight"), tensor.float().abs().max() / 448
        tensors[key] = (tensor.float() / scale).to(FLOAT8)
        tensors[f"{layer}.weight_scale"] = scale
        if inputs:
            tensors[f"{layer}.input_scale"] = torch.tensor(0.02)
        if full_precision:
            words = b'{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}'
            tensors[f"{layer}.comfy_quant"] = torch.tensor(list(words), dtype=torch.uint8)
    save_file(tensors, folder / CHECKPOINT, metadata)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> dict[str, Path]:
    """By how their weights are stored."""
    return {
        "bf16": demo_model,
        "fp8": scaled(tmp_path_factory.mktemp("fp8")),
        "fp8, inputs unknown": scaled(tmp_path_factory.mktemp("unknown"), inputs=False),
    }


@pytest.fixture(scope="module")
def expected(models: dict[str, Path]) -> dict[str, dict[str, Tensor]]:
    """Latents of mode resident."""
    found: dict[str, dict[str, Tensor]] = {}
    return found


def resident(
    models: dict[str, Path], expected: dict[str, dict[str, Tensor]], model: str
) -> dict[str, Tensor]:
    if model not in expected:
        residency = Residency("resident")
        with Engine.open(models[model], residency=residency, precision="fp8") as engine:
            expected[model] = latents(engine)
    return expected[model]


CASES = [(model, way) for way in WAYS for model in ("bf16", "fp8", "fp8, inputs unknown")]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("model", "way"), CASES)
def test_all_modes_give_the_same_bits(models, expected, model: str, way: str) -> None:
    for backend in (HostBackend(), SimulatedAccelerator()):
        with Engine.open(
            models[model], residency=WAYS[way], backend=backend, precision="fp8"
        ) as engine:
            assert same(latents(engine), resident(models, expected, model))


@pytest.mark.parametrize("model", ["bf16", "fp8"])
def test_they_are_near_the_exact_ones(models, expected, model: str) -> None:
    """Numbers with three bits behind the point, in a model of random weights."""
    with Engine.open(models[model], residency=Residency("resident")) as engine:
        exact = latents(engine)
    assert 1e-3 < distance(resident(models, expected, model), exact) < 0.1


def test_what_is_stored_in_float8_is_used_as_it_is(models) -> None:
    """Nothing is expanded but to be merged into, and what moves is what is stored."""
    with Engine.open(models["fp8"], residency=Residency("fused"), precision="fp8") as engine:
        before = engine.backend.traffic.expansions
        latents(engine, pipeline="one-stage")
        transformer = [row for row in engine.residency() if row.component == "transformer"]
        assert engine.backend.traffic.expansions == before
    with Engine.open(models["fp8"], residency=Residency("fused")) as engine:
        latents(engine, pipeline="one-stage")
        assert engine.backend.traffic.expansions > 0
    assert transformer


def test_weights_take_half_the_memory_of_mode_resident(models) -> None:
    held = {}
    for precision in ("exact", "fp8"):
        with Engine.open(
            models["bf16"], residency=Residency("resident"), precision=precision
        ) as engine:
            latents(engine)
            held[precision] = sum(
                row.nbytes for row in engine.residency() if row.component == "transformer"
            )
    assert held["fp8"] < 0.7 * held["exact"]


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["bf16", "fp8", "fp8, inputs unknown"])
def test_all_modes_give_the_same_bits_on_a_gpu(models, model: str) -> None:
    found = None
    for residency in (Residency("resident"), *WAYS.values()):
        with Engine.open(
            models[model], device="cuda", residency=residency, precision="fp8"
        ) as engine:
            made = latents(engine)
        found = found or made
        assert same(made, found)


# What is refused


def test_a_file_that_says_full_precision(tmp_path: Path) -> None:
    folder = scaled(tmp_path, full_precision=True)
    with pytest.raises(CheckpointError, match="full_precision_matrix_mult"):
        Engine.open(folder, precision="fp8")
    Engine.open(folder).close()


def test_float32(demo_model: Path) -> None:
    with pytest.raises(RequestError, match="precision fp8 goes with dtype bfloat16"):
        Engine.open(demo_model, precision="fp8", dtype="float32")


def test_an_unknown_precision(demo_model: Path) -> None:
    with pytest.raises(RequestError, match="'fp4' is not one of exact, fp8"):
        Engine.open(demo_model, precision="fp4")  # type: ignore[arg-type]


def test_mode_dynamic_of_what_is_not_stored_in_float8(demo_model: Path) -> None:
    with (
        Engine.open(demo_model, residency=Residency("dynamic"), precision="fp8") as engine,
        pytest.raises(ResidencyError, match="compute from its weights as they are stored"),
    ):
        latents(engine)


def test_a_card_without_products_in_float8(
    demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entracte.pipeline.open_model.multiplies_float8", lambda _: False)
    with pytest.raises(RequestError, match=r"compute capability 8\.9"):
        Engine.open(demo_model, precision="fp8")
