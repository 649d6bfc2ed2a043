"""The demonstration models of other versions: recognised, and the same bits in every mode."""

from pathlib import Path

import pytest
import torch

from entracte import Engine, Request, Residency
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.model_header import ModelHeader, read_model_header
from entracte.errors import CheckpointError
from entracte.synthetic.demo import DISTILLED_LORA, GEMMA
from entracte.synthetic.demo_versions import Version, write_demo_version

VERSIONS: tuple[Version, ...] = ("2.0", "2.5")
MODES = (
    Residency("resident"),
    Residency("fused"),
    Residency("snapshot", snapshot_policy="low-vram"),
    Residency("snapshot", snapshot_policy="aggressive"),
    Residency("original"),
)
RECIPES = ("two-stage", "hq", "distilled", "one-stage")


@pytest.fixture(scope="module", params=VERSIONS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("demo") / "model"
    write_demo_version(folder, request.param)
    return request.param, folder


def test_it_is_recognised(model: tuple[Version, Path]) -> None:
    version, folder = model
    assert read_model_header(str(folder), (), distilled=False) == ModelHeader(version, 4)
    source = open_model(str(folder), ModelPaths(), distilled=False)
    assert source.version.name == version
    assert source.distilled_lora is not None
    assert ("duration_head" in source.components) == (version == "2.5")


def test_a_stock_gemma_is_refused(tmp_path: Path, demo_model: Path) -> None:
    write_demo_version(tmp_path, "2.5")
    for gemma in (demo_model / GEMMA, demo_model / DISTILLED_LORA):
        with pytest.raises(CheckpointError, match="a stock Gemma encodes text otherwise"):
            open_model(str(tmp_path), ModelPaths(gemma_root=gemma), distilled=False)
    (text,) = (tmp_path / "text_encoders").iterdir()
    text.rename(tmp_path.parent / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="the text encoder: it is missing"):
        open_model(str(tmp_path), ModelPaths(), distilled=False)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", RECIPES)
def test_every_mode_has_the_same_bits(model: tuple[Version, Path], pipeline: str) -> None:
    _, folder = model
    steps = None if pipeline == "distilled" else 2
    request = Request(
        "a street",
        pipeline=pipeline,
        height=64,
        width=64,
        num_frames=9,
        num_inference_steps=steps,
    )
    found = []
    for residency in MODES:
        with Engine.open(folder, residency=residency) as engine:
            found.append(engine.generate(request, keep_frames=False).latents)
    for latents in found[1:]:
        assert latents.keys() == found[0].keys()
        assert all(torch.equal(latents[name], each) for name, each in found[0].items())
