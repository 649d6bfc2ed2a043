"""Models with random weights: the published sizes, steady values, and a generation."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from entracte import Engine, Guidance, Request
from entracte.checkpoints.loading import FileSource, build_component
from entracte.checkpoints.sources import Located, ModelSource
from entracte.errors import MediaError
from entracte.machine.torch_device import pick_device
from entracte.models.gemma import Tokenizer
from entracte.models.registry import LTX_2_3
from entracte.planner.model_profile import figures_of, published
from entracte.residency import open_backend
from entracte.residency.policy import Residency
from entracte.synthetic.random_file import Numbers, RandomFile
from entracte.synthetic.random_model import random_model

LISTING = Path(__file__).parent.parent / "data" / "ltx-2.3-full.json.gz"
REQUEST = Request(
    prompt="A quiet street",
    height=128,
    width=128,
    num_frames=9,
    num_inference_steps=2,
    video_guidance=Guidance(cfg=3.0),
    audio_guidance=Guidance(cfg=7.0),
)
Generated = tuple[dict[str, Tensor], Tensor, Tensor]

PINNED = [0.125, 0.10400390625, 0.00201416015625, 0.11083984375]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return random_model("full", tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return random_model("medium", tmp_path_factory.mktemp("medium"))


@pytest.fixture(scope="module")
def resident(medium: ModelSource) -> Generated:
    return generate(medium, Residency("resident"))


def generate(source: ModelSource, way: Residency) -> Generated:
    backend = open_backend(pick_device("cpu"))
    with Engine(source, backend, torch.bfloat16, way) as engine:
        result = engine.generate(REQUEST)
    assert result.frames is not None
    return dict(result.latents), result.audio, result.frames


def test_the_full_one_has_the_published_tensors(full: ModelSource) -> None:
    listing = json.loads(gzip.decompress(LISTING.read_bytes()))
    wanted = {key: tuple(shape) for key, shape in listing["tensors"].items()}
    wanted |= {key: tuple(s) for key, s in listing["upsampler"]["tensors"].items()}
    found = {
        located.key: located.info.shape
        for name, component in full.components.items()
        if name != "text_encoder"
        for located in component.tensors.values()
    }
    assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("size", ["full", "medium"])
def test_every_component_finds_its_tensors(size: str, request: pytest.FixtureRequest) -> None:
    source: ModelSource = request.getfixturevalue(size)
    assert len(source.components) == 7
    for component in source.components.values():
        build_component(component, LTX_2_3)  # raises where one is missing, left over, or misshapen


@pytest.mark.slow
def test_the_full_one_has_the_published_figures(full: ModelSource) -> None:
    assert figures_of(full, torch.bfloat16) == published("ltx-2.3")


@pytest.mark.slow
def test_the_full_ones_lora_is_on_every_linear(full: ModelSource) -> None:
    assert full.distilled_lora is not None
    shapes = {key: info.shape for key, info in full.distilled_lora[0].tensors.items()}
    linears = [
        name
        for name, module in build_component(full.components["transformer"], LTX_2_3).named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    factors = {f"diffusion_model.{name}.lora_{each}.weight" for name in linears for each in "AB"}
    assert shapes.keys() == factors
    assert len(linears) == 1660
    gate = "diffusion_model.transformer_blocks.0.attn1.to_gate_logits"
    assert shapes[f"{gate}.lora_A.weight"] == (32, 4096)
    wide = "diffusion_model.transformer_blocks.47.ff.net.0.proj"
    assert shapes[f"{wide}.lora_A.weight"] == (384, 4096)
    assert shapes[f"{wide}.lora_B.weight"] == (16384, 384)


@pytest.mark.slow
def test_the_medium_one_is_mostly_its_transformer(medium: ModelSource) -> None:
    sizes = {name: component.nbytes for name, component in medium.components.items()}
    assert 300e6 < sum(sizes.values()) < 600e6
    assert sizes["transformer"] > sum(sizes.values()) / 2
    units = figures_of(medium, torch.bfloat16).units["transformer"]
    assert all(10e6 < nbytes < 15e6 for nbytes in units[:-1])


def test_values_are_the_same_in_any_order_and_any_process(tmp_path: Path) -> None:
    """They follow from a tensor's name and shape alone, so that they can be written down here."""
    shapes = {"a.weight": (64, 48), "b.weight": (3, 5, 7), "c.bias": (9,)}
    one, two = (RandomFile(tmp_path / "one", shapes, Numbers()) for _ in range(2))
    forwards = {key: Located(one, key).tensor() for key in shapes}
    backwards = {key: Located(two, key).tensor() for key in reversed(shapes)}
    for key, shape in shapes.items():
        assert forwards[key].shape == shape
        assert torch.equal(forwards[key], backwards[key])
        assert torch.equal(forwards[key], Located(one, key).tensor())
    assert forwards["a.weight"][0, :4].tolist() == PINNED


def test_values_are_spread_as_torch_would_spread_them(tmp_path: Path) -> None:
    key = "model.diffusion_model.x.weight"
    tensor = Located(RandomFile(tmp_path, {key: (1024, 4096)}, Numbers()), key).tensor().float()
    assert tensor.abs().max() <= 4096**-0.5
    assert tensor.std() == pytest.approx(4096**-0.5 / 3**0.5, rel=0.01)
    assert abs(tensor.mean()) < 1e-4
    assert len(tensor.unique(dim=0)) == 1024


@pytest.mark.slow
def test_a_full_block_is_read(full: ModelSource) -> None:
    source = full.components["transformer"]
    reader = FileSource(source, LTX_2_3, torch.bfloat16)
    names = [name for name in source.tensors if name.startswith("transformer_blocks.7.")]
    for name in names:
        out = torch.full(source.tensors[name].info.shape, torch.nan, dtype=torch.bfloat16)
        reader.read(name, out)
        assert out.isfinite().all()
    assert sum(source.tensors[name].info.nbytes for name in names) == 773_390_720


@pytest.mark.slow
def test_the_medium_one_computes_finite_numbers(resident: Generated) -> None:
    latents, audio, frames = resident
    for tensor in latents.values():
        assert tensor.isfinite().all()
        assert tensor.float().std() > 0.1
    assert audio.isfinite().all()
    assert audio.abs().max() > 0
    assert frames.float().std() > 5


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fused", "snapshot"])
def test_the_medium_one_runs_alike_in_every_mode(
    medium: ModelSource, resident: Generated, mode: Literal["fused", "snapshot"]
) -> None:
    latents, audio, frames = generate(medium, Residency(mode))
    for name, tensor in resident[0].items():
        assert torch.equal(tensor, latents[name])
    assert torch.equal(resident[1], audio)
    assert torch.equal(resident[2], frames)


@pytest.mark.slow
def test_stage_2_depends_on_the_lora(medium: ModelSource, resident: Generated) -> None:
    assert medium.distilled_lora is not None
    without = replace(medium, distilled_lora=(medium.distilled_lora[0], 0.0))
    bare, *_ = generate(without, Residency("resident"))
    assert torch.equal(resident[0]["stage1.video_latent"], bare["stage1.video_latent"])
    assert not torch.equal(resident[0]["stage2.video_latent"], bare["stage2.video_latent"])


@pytest.mark.slow
def test_latents_depend_on_the_weights(medium: ModelSource, resident: Generated) -> None:
    transformer = medium.components["transformer"]
    tensors = dict(transformer.tensors)
    first, second = (f"transformer_blocks.{block}.attn1.to_v.weight" for block in (0, 1))
    tensors[first], tensors[second] = tensors[second], tensors[first]
    changed = dict(medium.components) | {"transformer": replace(transformer, tensors=tensors)}
    other, *_ = generate(replace(medium, components=changed), Residency("resident"))
    assert not torch.equal(resident[0]["stage1.video_latent"], other["stage1.video_latent"])


@pytest.mark.slow
def test_the_tokenizer_is_a_byte_a_token(medium: ModelSource) -> None:
    assert len(Tokenizer(medium.tokenizer, 300_000).encode("abc", truncate=False)) == 4


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MediaError, match="cannot write a tokenizer to"):
        random_model("medium", tmp_path / "file")


@pytest.mark.slow
def test_fewer_blocks_and_all_else(medium: ModelSource, tmp_path: Path) -> None:
    fewer = random_model("medium", tmp_path, blocks=2)
    transformer = fewer.components["transformer"]
    assert transformer.config["num_layers"] == 2
    kept = {
        name
        for name in medium.components["transformer"].tensors
        if not name.startswith("transformer_blocks.") or int(name.split(".")[1]) < 2
    }
    assert transformer.tensors.keys() == kept
    others = medium.components.keys() - {"transformer"}
    assert fewer.components.keys() - {"transformer"} == others
    assert all(
        fewer.components[n].tensors.keys() == medium.components[n].tensors.keys() for n in others
    )
    assert fewer.distilled_lora is not None
    assert len(fewer.distilled_lora[0].tensors) < len(medium.distilled_lora[0].tensors)
