"""Finding a model's files: in folders, and in the hub's cache."""

import shutil
from pathlib import Path

import pytest

from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.official import needed_files
from entracte.errors import CheckpointError
from entracte.synthetic.demo import CHECKPOINT

PUBLISHED = [
    "README.md",
    "ltx-2.3-22b-dev.safetensors",
    "ltx-2.3-22b-distilled.safetensors",
    "ltx-2.3-22b-distilled-1.1.safetensors",
    "ltx-2.3-22b-distilled-lora-384.safetensors",
    "ltx-2.3-22b-distilled-lora-384-1.1.safetensors",
    "ltx-2.3-spatial-upscaler-x1.5-1.0.safetensors",
    "ltx-2.3-spatial-upscaler-x2-1.0.safetensors",
    "ltx-2.3-spatial-upscaler-x2-1.1.safetensors",
    "ltx-2.3-temporal-upscaler-x2-1.0.safetensors",
]


def test_what_two_stages_need_of_the_published_repository() -> None:
    assert needed_files(PUBLISHED, distilled=False) == [
        "ltx-2.3-spatial-upscaler-x2-1.1.safetensors",
        "ltx-2.3-22b-dev.safetensors",
        "ltx-2.3-22b-distilled-lora-384-1.1.safetensors",
    ]


def test_what_the_distilled_pipeline_needs() -> None:
    assert needed_files(PUBLISHED, distilled=True) == [
        "ltx-2.3-spatial-upscaler-x2-1.1.safetensors",
        "ltx-2.3-22b-distilled-1.1.safetensors",
    ]


def test_what_a_diffusers_repository_needs() -> None:
    files = ["model_index.json", "vae/config.json", "assets/video.mp4", "scheduler/config.json"]
    assert needed_files(files, distilled=False) == ["model_index.json", "vae/config.json"]


def test_a_file_instead_of_a_folder(demo_model: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; give it as `checkpoint_path`"):
        open_model(str(demo_model / CHECKPOINT), ModelPaths(), distilled=False)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no LTX checkpoint"):
        open_model(str(tmp_path), ModelPaths(), distilled=False)


@pytest.fixture
def two_checkpoints(demo_model: Path, tmp_path: Path) -> Path:
    shutil.copytree(demo_model, tmp_path, dirs_exist_ok=True)
    shutil.copy(demo_model / CHECKPOINT, tmp_path / "ltx-2.3-demo-distilled.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("distilled", "name"), [(False, CHECKPOINT), (True, "ltx-2.3-demo-distilled.safetensors")]
)
def test_the_pipeline_chooses_the_checkpoint(
    two_checkpoints: Path, distilled: bool, name: str
) -> None:
    source = open_model(str(two_checkpoints), ModelPaths(), distilled)
    located = next(iter(source.components["transformer"].tensors.values()))
    assert located.file.path.name == name


def test_two_checkpoints_that_cannot_be_told_apart(two_checkpoints: Path) -> None:
    shutil.copy(two_checkpoints / CHECKPOINT, two_checkpoints / "ltx-copy.safetensors")
    with pytest.raises(CheckpointError, match=r"several checkpoints .*; name one with"):
        open_model(str(two_checkpoints), ModelPaths(), distilled=False)
