"""The published checkpoint's names and shapes, all 5,947 of them, without its weights."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from entracte.checkpoints.adapter_keys import of_adapter
from entracte.checkpoints.loading import build_component
from entracte.checkpoints.published import open_checkpoint, open_upsampler
from entracte.checkpoints.published_sizes import published_listing
from entracte.checkpoints.safetensors_file import TensorInfo
from entracte.errors import CheckpointError
from entracte.models.registry import LTX_2_0, LTX_2_3, LTX_2_5, ModelVersion

LISTING = Path(__file__).parent.parent / "data" / "ltx-2.3-full.json.gz"


@dataclass
class HeaderOnly:
    """Looks like a SafetensorsFile of which only the header was read."""

    path: Path
    metadata: dict
    tensors: dict
    quantised: None = None

    @classmethod
    def of(cls, metadata: dict, shapes: dict) -> "HeaderOnly":
        infos = {
            name: TensorInfo(torch.bfloat16, tuple(shape), 0, 2 * torch.Size(shape).numel())
            for name, shape in shapes.items()
        }
        return cls(Path("published.safetensors"), metadata, infos)

    @property
    def config(self) -> dict:
        return self.metadata["config"]


@pytest.fixture(scope="module")
def listing() -> dict:
    return json.loads(gzip.decompress(LISTING.read_bytes()))


@pytest.fixture(scope="module")
def components(listing: dict) -> dict:
    version, found = open_checkpoint([HeaderOnly.of(listing["metadata"], listing["tensors"])])
    assert version is LTX_2_3
    upsampler = listing["upsampler"]
    found["upsampler"] = open_upsampler(HeaderOnly.of(upsampler["metadata"], upsampler["tensors"]))
    return found


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("transformer", 18.99e9),
        ("connectors", 3.17e9),
        ("video_vae", 0.726e9),
        ("audio_vae", 0.05e9),
        ("vocoder", 0.13e9),
        ("upsampler", 0.498e9),
    ],
)
def test_every_tensor_finds_its_parameter(components: dict, name: str, parameters: float) -> None:
    module = build_component(components[name], LTX_2_3)  # raises where one is missing or left over
    built = sum(tensor.numel() for tensor in module.state_dict().values())
    assert built == components[name].parameters
    assert components[name].parameters == pytest.approx(parameters, rel=0.1)


def test_no_tensor_is_left_over(components: dict, listing: dict) -> None:
    placed = sum(len(c.tensors) for name, c in components.items() if name != "upsampler")
    assert placed == len(listing["tensors"]) == 5947


def test_it_is_no_adapter(listing: dict) -> None:
    """Though its vocoder has alphas."""
    assert not of_adapter(listing["tensors"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("drop", r"1 of its 4,186 tensors are not in the checkpoint, the first .*blocks\.7\.attn1"),
        ("add", r"1 tensors that LTX-2\.3 does not have, the first .*blocks\.7\.attn9"),
        ("reshape", r"blocks\.7\.attn1.* is \[1, 4096\]; by the config it is \[4096, 4096\]"),
    ],
)
def test_a_wrong_tensor_is_noticed(listing: dict, change: str, words: str) -> None:
    shapes = dict(listing["tensors"])
    name = "model.diffusion_model.transformer_blocks.7.attn1.to_q.weight"
    if change == "drop":
        del shapes[name]
    elif change == "add":
        shapes["model.diffusion_model.transformer_blocks.7.attn9.to_q.weight"] = [2, 2]
    else:
        shapes[name] = [1, 4096]
    _, found = open_checkpoint([HeaderOnly.of(listing["metadata"], shapes)])
    with pytest.raises(CheckpointError, match=f"transformer: .*{words}"):
        build_component(found["transformer"], LTX_2_3)


@pytest.mark.parametrize("version", ["2.9.0", "3.1.1"])
def test_other_versions_are_refused_by_name(listing: dict, version: str) -> None:
    metadata = listing["metadata"] | {"model_version": version}
    with pytest.raises(CheckpointError, match=rf"is LTX-{version[:3]}; this release runs LTX-2\.0"):
        open_checkpoint([HeaderOnly.of(metadata, listing["tensors"])])


def test_a_version_that_is_not_declared_is_inferred(listing: dict) -> None:
    config = json.loads(json.dumps(listing["metadata"]["config"]))
    config["transformer"]["cross_attention_adaln"] = False
    version, _ = open_checkpoint([HeaderOnly.of({"config": config}, listing["tensors"])])
    assert version is LTX_2_0


@pytest.mark.parametrize(
    ("version", "parameters"), [(LTX_2_0, 18.88e9), (LTX_2_5, 18.99e9)], ids=["2.0", "2.5"]
)
def test_other_versions_find_every_tensor(version: ModelVersion, parameters: float) -> None:
    """2.0 of the sizes that diffusers has for it, 2.5 of its transformer's header."""
    listing = published_listing(version.name)
    opened, found = open_checkpoint([HeaderOnly.of(listing["metadata"], listing["tensors"])])
    assert opened is version
    for source in found.values():
        build_component(source, version)
    assert sum(len(source.tensors) for source in found.values()) == len(listing["tensors"])
    assert found["transformer"].parameters == pytest.approx(parameters, rel=1e-3)
