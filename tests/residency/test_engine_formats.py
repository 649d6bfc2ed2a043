"""A model whose linears are stored in float8: half the bytes, and the bits of the widened model."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from entracte import Engine, Residency
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator
from entracte.synthetic.demo import CHECKPOINT, GEMMA, write_demo_model

from ..planner.test_engine_planner import SLOW
from .test_engine_residency import distance, latents, same, small

FILES = {CHECKPOINT: ".transformer_blocks.", f"{GEMMA}/model.safetensors": ".layers."}
WAYS = (
    pytest.param(Residency(), marks=pytest.mark.slow),
    Residency(
        "fused",
        resident_blocks=1,
        merged_blocks=1,
        places={"text_encoder": "streamed", "connectors": "disk"},
    ),
    pytest.param(Residency("snapshot", resident_blocks=2), marks=pytest.mark.slow),
    pytest.param(Residency("original", resident_blocks=2), marks=pytest.mark.slow),
)


def convert(folder: Path, dtype: torch.dtype) -> Path:
    """The demonstration model, its blocks' linears rounded to float8 and then held as `dtype`."""
    write_demo_model(folder)
    for name, of_blocks in FILES.items():
        with safe_open(folder / name, "pt") as file:
            metadata = file.metadata()
        tensors = {
            key: tensor.to(torch.float8_e4m3fn).to(dtype)
            if of_blocks in key and key.endswith(".weight") and tensor.ndim == 2
            else tensor
            for key, tensor in load_file(folder / name).items()
        }
        save_file(tensors, folder / name, metadata)
    return folder


@pytest.fixture(scope="module")
def float8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("float8"), torch.float8_e4m3fn)


@pytest.fixture(scope="module")
def widened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tmp_path_factory.mktemp("widened"), torch.bfloat16)


@pytest.fixture(scope="module")
def expected(widened: Path) -> dict[str, Tensor]:
    with Engine.open(widened, residency=Residency("resident"), backend=HostBackend()) as engine:
        return latents(engine)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("residency", WAYS)
def test_the_bits_are_those_of_the_widened_model(
    float8: Path, expected: dict[str, Tensor], residency: Residency
) -> None:
    with Engine.open(float8, residency=residency, backend=HostBackend()) as engine:
        assert same(latents(engine), expected)


@pytest.mark.gpu
def test_the_bits_are_those_of_the_widened_model_on_a_gpu(float8: Path, widened: Path) -> None:
    with Engine.open(widened, device="cuda") as engine:
        expected = latents(engine)
    with Engine.open(float8, device="cuda") as engine:
        for residency in (
            Residency("resident"),
            Residency("fused", resident_blocks=1, merged_blocks=1),
            Residency("fused", resident_blocks=0, places={"text_encoder": "streamed"}),
            Residency("snapshot", resident_blocks=2),
            Residency("snapshot", snapshot_policy="aggressive"),
        ):
            engine.configure(residency)
            for _ in range(2):
                assert same(latents(engine), expected), residency


@pytest.mark.slow
def test_dynamic_computes_from_what_is_stored(float8: Path, expected: dict[str, Tensor]) -> None:
    with Engine.open(float8, residency=Residency("dynamic"), backend=HostBackend()) as engine:
        found = latents(engine)
    assert torch.equal(found["stage1.video_latent"], expected["stage1.video_latent"])
    assert 0 < distance(found, expected) < 2e-2


@pytest.mark.slow
def test_auto_finds_a_plan(float8: Path, expected: dict[str, Tensor]) -> None:
    with Engine.open(float8) as engine:
        assert same(latents(engine), expected)
        assert engine.decision is not None
        assert engine.decision.chosen.name != "dynamic"


@pytest.mark.slow
@pytest.mark.parametrize(
    "residency",
    [
        Residency("fused"),
        Residency("fused", resident_blocks=0),
        Residency("dynamic", resident_blocks=1),
    ],
)
def test_what_rests_takes_half_the_memory(
    float8: Path, widened: Path, residency: Residency
) -> None:
    """Those of the blocks do; tables, biases and norms are not in float8."""
    nbytes = {}
    for model in (float8, widened):
        with Engine.open(model, residency=residency, backend=SimulatedAccelerator()) as engine:
            engine.load(small())
            nbytes[model] = sum(
                row.nbytes
                for row in engine.residency()
                if row.component == "transformer" and row.role == "weights"
            )
    assert 0.4 < nbytes[float8] / nbytes[widened] < 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    "residency", [Residency("fused", resident_blocks=1, merged_blocks=1), Residency("snapshot")]
)
def test_the_planner_counts_what_is_stored(float8: Path, residency: Residency) -> None:
    backend = SimulatedAccelerator()
    with Engine.open(float8, residency=residency, backend=backend, hardware=SLOW) as engine:
        predicted = engine.plan(small()).chosen.prediction
        engine.load(small())
        assert backend.host_bytes == predicted.peak_host_bytes
        loaded = sum(
            row.nbytes
            for row in engine.residency()
            if row.component == "transformer" and row.where == "device"
        )
        assert loaded == predicted.stages[-1].weights["transformer"]
