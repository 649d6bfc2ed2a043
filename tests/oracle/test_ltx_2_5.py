"""LTX-2.5: its Gemma 4, transformer, sampler and duration head against the official numbers."""

from dataclasses import replace

import pytest
import torch

from entracte.checkpoints.gemma4_file import open_gemma4, require_same_gemma
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.errors import CheckpointError
from entracte.models.connectors import TextContext
from entracte.models.duration_head import frames_of
from entracte.models.gemma import Tokenizer
from entracte.models.registry import LTX_2_5
from entracte.pipeline.conditions import connect_text, encode_text
from entracte.pipeline.latents import Latents, noise_sizes, prepare_latents
from entracte.sampling.euler import ANCESTRAL_SEED
from entracte.sampling.noise import NoiseSource
from tests.components import load_component

from .oracle import FLOAT32, distance
from .pack import CPU, ONE_CALL, VersionPack, denoise

CASES = ("distilled", "distilled_i2v")


@pytest.fixture(scope="module")
def pack() -> VersionPack:
    return VersionPack("ltx-2.5", LTX_2_5, layers=2)


@pytest.fixture(scope="module")
def sources(pack: VersionPack) -> dict:
    transformer = SafetensorsFile(pack.root / "distilled-transformer.safetensors")
    head = SafetensorsFile(pack.root / "duration-head.safetensors")
    version, found = open_checkpoint([transformer, head])
    assert version is LTX_2_5
    text = open_gemma4(SafetensorsFile(pack.root / "text-encoder.safetensors"))
    require_same_gemma(transformer, text)
    connectors = found["connectors"]
    found["connectors"] = replace(connectors, tensors={**connectors.tensors, **text.projections})
    return {**found, "text_encoder": text.component, "tokenizer": text.tokenizer}


def load(sources: dict, name: str, dtype: torch.dtype):
    return load_component(sources[name], CPU, dtype, LTX_2_5)


@pytest.fixture(scope="module")
def transformer(sources: dict):
    return load(sources, "transformer", torch.bfloat16)


@pytest.fixture(scope="module")
def context(pack: VersionPack, sources: dict) -> TextContext:
    tokens = Tokenizer(sources["tokenizer"], 300).encode(pack.case("distilled")["prompt"])
    with torch.inference_mode():
        states = encode_text(load(sources, "text_encoder", torch.bfloat16), tokens, CPU)
        return connect_text(load(sources, "connectors", torch.bfloat16), states)


def test_gemma_in_float32(pack: VersionPack, sources: dict) -> None:
    """The states of all layers; the long prompt is longer than a sliding layer sees."""
    encoder = load(sources, "text_encoder", torch.float32)
    for name in ("0", "1", "long"):
        prefix = f"module.text_encoder.{name}"
        states = encoder(pack[f"{prefix}.input_ids"][0])
        recorded = [n for n in pack.names if n.startswith(f"{prefix}.hidden_state.")]
        assert recorded
        for each in recorded:
            ours = states[..., int(each.rsplit(".", 1)[1])]
            assert distance(ours, pack[each][0]) < FLOAT32


def test_text_features_in_float32(pack: VersionPack, sources: dict) -> None:
    encoder = load(sources, "text_encoder", torch.float32)
    connectors = load(sources, "connectors", torch.float32)
    for name in ("0", "1"):
        prefix = f"module.text_encoder.{name}"
        states = encoder(pack[f"{prefix}.input_ids"][0])
        made = connectors.text_embedding_projection(states)
        for stream, features in zip(("video", "audio"), made, strict=True):
            assert distance(features, pack[f"{prefix}.{stream}_features"][0]) < FLOAT32


def test_tokens(pack: VersionPack, sources: dict) -> None:
    """The tokenizer is in the file, and does not set the start token itself."""
    tokenizer = Tokenizer(sources["tokenizer"], 300)
    long = tokenizer.encode(pack.expected["long_prompt"])
    assert long.tolist() == pack["module.text_encoder.long.input_ids"][0].tolist()


def test_contexts(pack: VersionPack, context: TextContext) -> None:
    for stream, ours in (("video", context.video), ("audio", context.audio)):
        head = pack[f"distilled.prompt_encoder.0.{stream}_context_head"]
        assert distance(ours[:, : head.shape[1]], head) < ONE_CALL


@pytest.mark.parametrize(
    "call", ["distilled.forward.1", "distilled.forward.8", "distilled_i2v.forward.8"]
)
def test_forwards(pack: VersionPack, transformer, context: TextContext, call: str) -> None:
    marked = int(pack[f"{call}.video.keyframes_mask"].sum())
    assert pack[f"{call}.video.keyframes_mask"][0, :marked].all()
    inputs = pack.inputs(call, transformer, [context], pictures=((0, marked),))
    (velocity,) = transformer(*inputs)
    pack.assert_velocity(call, velocity)
    (unmarked,) = transformer(replace(inputs[0], pictures=()), inputs[1])
    assert distance(unmarked.video, pack[f"{call}.video.velocity"]) > ONE_CALL


@pytest.mark.parametrize("name", CASES)
def test_noise_levels_and_marks(pack: VersionPack, name: str) -> None:
    """Bit for bit; the first frame's tokens stand for a picture, those of images do not."""
    resolved = pack.resolved(name)
    assert [each.crf for each in resolved.request.images] == [18] * len(resolved.request.images)
    pack.assert_noise_alike(name, resolved)
    pack.assert_begins_alike(name, resolved)
    ((start, stop),) = pack.begin(name, resolved)[0].pictures
    mask = pack[f"{name}.forward.0.video.keyframes_mask"][0, :, 0]
    assert mask[start:stop].all()
    assert mask.sum() == stop - start


def test_ancestral_noise(pack: VersionPack) -> None:
    """Bit for bit."""
    noise = NoiseSource(pack.case("distilled")["seed"] + ANCESTRAL_SEED)
    for number in range(4):
        recorded = pack[f"distilled.sde_noise.{number}"]
        assert torch.equal(noise.draw(*recorded.shape[1:]), recorded)


@pytest.mark.parametrize("name", CASES)
def test_first_acts(pack: VersionPack, transformer, context: TextContext, name: str) -> None:
    resolved = pack.resolved(name)
    phase = resolved.phases[0]
    assert phase.phase.sampler == "ancestral-euler"
    assert resolved.phases[1].phase.sampler == "euler"
    tokens = pack.begin(name, resolved)
    made = denoise(resolved.request.seed, phase, transformer, tokens, [context])
    pack.assert_ends_alike(name, "stage1", made)


def test_second_act(pack: VersionPack, transformer, context: TextContext) -> None:
    resolved = pack.resolved("distilled")
    phase, noise = resolved.phases[1], NoiseSource(resolved.request.seed)
    for size in noise_sizes(resolved.phases[0].grid.tokens, 128, resolved.request.audio_tokens):
        noise.draw(*size)
    start = Latents(pack["distilled.upsampler.output"], pack["distilled.stage1.audio_latent"])
    tokens = prepare_latents(start, phase.grid, [], noise, phase.phase.noise_scale)
    made = denoise(resolved.request.seed, phase, transformer, tokens, [context])
    pack.assert_ends_alike("distilled", "stage2", made)


def test_duration_head(pack: VersionPack, sources: dict, context: TextContext) -> None:
    case = pack.case("distilled_auto_duration")
    seconds = load(sources, "duration_head", torch.bfloat16)(context).item()
    assert frames_of(seconds, case["frame_rate"], *case["auto_duration"]) == 25
    assert case["predicted_num_frames"] == 25


def test_another_gemma_is_refused(pack: VersionPack) -> None:
    """One of another fine-tuning, and one without the projections."""
    text = open_gemma4(SafetensorsFile(pack.root / "text-encoder.safetensors"))
    transformer = SafetensorsFile(pack.root / "distilled-transformer.safetensors")
    with pytest.raises(CheckpointError, match="was trained with the text encoder gemma4-12b"):
        require_same_gemma(transformer, replace(text, version="gemma4-12b-ltx-v2"))
    transformer.metadata = {}
    with pytest.raises(CheckpointError, match="does not say which text encoder"):
        require_same_gemma(transformer, text)
    stock = SafetensorsFile(pack.root / "text-encoder.safetensors")
    stock.tensors = {k: v for k, v in stock.tensors.items() if "projection" not in k}
    with pytest.raises(CheckpointError, match="a stock Gemma encodes text otherwise"):
        open_gemma4(stock)
