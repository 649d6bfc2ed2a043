"""Every tensor of a source has a place in diffusers' models, and they have no other."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from entracte.bench.diffusers_weights import load_component, match_component
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.published import open_checkpoint, open_upsampler
from entracte.checkpoints.sources import ComponentSource, ModelSource
from entracte.errors import CheckpointError
from entracte.models.registry import LTX_2_3

from ..checkpoints.test_full_size import LISTING, HeaderOnly

COMPONENTS = ("transformer", "connectors", "video_vae", "audio_vae", "vocoder", "upsampler")


@pytest.fixture(scope="module")
def demo(demo_model: Path) -> ModelSource:
    return open_model(str(demo_model), ModelPaths(), distilled=False)


@pytest.fixture(scope="module")
def published() -> ModelSource:
    """The published checkpoint's names and shapes."""
    listing = json.loads(gzip.decompress(LISTING.read_bytes()))
    _, found = open_checkpoint([HeaderOnly.of(listing["metadata"], listing["tensors"])])
    upsampler = listing["upsampler"]
    found["upsampler"] = open_upsampler(HeaderOnly.of(upsampler["metadata"], upsampler["tensors"]))
    gemma = ComponentSource("text_encoder", {"text_config": {"hidden_size": 3840}}, {})
    return ModelSource(LTX_2_3, {**found, "text_encoder": gemma}, Path(), None)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", COMPONENTS)
def test_the_published_checkpoint_fits(published: ModelSource, name: str) -> None:
    match = match_component(published, name)  # raises where one is missing or left over
    assert not match.left_out
    assert len(match.tensors) == len(published.components[name].tensors)


@pytest.mark.parametrize("name", [*COMPONENTS, "text_encoder"])
def test_every_tensor_is_used(demo: ModelSource, name: str) -> None:
    tensors = demo.components[name].tensors
    match = match_component(demo, name)
    assert {located.key for located in match.tensors.values()} == {
        located.key for ours, located in tensors.items() if ours not in match.left_out
    }
    # Only the demonstration model's encoder cannot be expressed.
    if name == "video_vae":
        assert all(left.startswith("encoder.") for left in match.left_out)
    else:
        assert not match.left_out


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMPONENTS, "text_encoder"])
def test_weights_are_filled(demo: ModelSource, name: str) -> None:
    model = load_component(demo, name, torch.device("cpu"), torch.bfloat16)
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert not tensor.is_meta, key
        assert tensor.isfinite().all(), key
    expected = torch.float32 if name == "vocoder" else torch.bfloat16
    for key, located in match_component(demo, name).tensors.items():
        assert torch.equal(model.state_dict()[key], located.tensor().to(expected)), key


def test_a_missing_tensor(demo: ModelSource) -> None:
    transformer = demo.components["transformer"]
    fewer = dict(transformer.tensors)
    del fewer["proj_out.weight"]
    changed = replace(demo, components={"transformer": replace(transformer, tensors=fewer)})
    with pytest.raises(CheckpointError, match=r"1 tensors .* the first is proj_out\.weight"):
        match_component(changed, "transformer")
