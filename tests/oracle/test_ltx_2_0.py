"""LTX-2.0: its text side, its transformer and its vocoder against the official implementation."""

from dataclasses import replace

import pytest
import torch

from entracte.checkpoints.gemma_folder import open_gemma
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.audio_vae import AudioVae
from entracte.models.connectors import TextContext
from entracte.models.gemma import Tokenizer
from entracte.models.registry import LTX_2_0
from entracte.models.vocoder import Vocoder
from entracte.pipeline.conditions import connect_text, encode_text
from entracte.pipeline.latents import Latents, noise_sizes, prepare_latents
from entracte.sampling.noise import NoiseSource
from entracte.synthetic import demo_config
from tests.components import load_component

from .oracle import distance
from .pack import ONE_CALL, VersionPack, denoise

CPU = torch.device("cpu")
CASES = ("t2v", "i2v", "distilled", "distilled_i2v", "hq")


@pytest.fixture(scope="module")
def pack() -> VersionPack:
    return VersionPack("ltx-2.0", LTX_2_0, layers=3)


@pytest.fixture(scope="module")
def components(pack: VersionPack) -> dict:
    version, found = open_checkpoint([SafetensorsFile(pack.root / "checkpoint.safetensors")])
    assert version is LTX_2_0
    found["text_encoder"] = open_gemma(pack.root / "gemma")
    return {
        name: load_component(each, CPU, torch.bfloat16, version) for name, each in found.items()
    }


@pytest.fixture(scope="module")
def contexts(pack: VersionPack, components: dict) -> list[TextContext]:
    case, tokenizer = pack.case("t2v"), Tokenizer(pack.root / "gemma", 300)
    with torch.inference_mode():
        return [
            connect_text(
                components["connectors"],
                encode_text(components["text_encoder"], tokenizer.encode(prompt), CPU),
            )
            for prompt in (case["prompt"], case["negative_prompt"])
        ]


def test_contexts(pack: VersionPack, contexts: list[TextContext]) -> None:
    for number, context in enumerate(contexts):
        for stream in ("video", "audio"):
            head = pack[f"t2v.prompt_encoder.{number}.{stream}_context_head"]
            ours = context.video if stream == "video" else context.audio
            assert distance(ours[:, : head.shape[1]], head) < ONE_CALL


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_guided_forwards(
    pack: VersionPack, components: dict, contexts: list[TextContext], rows_at_once: int
) -> None:
    phase = pack.resolved("t2v").phases[0]
    inputs = list(pack.inputs("t2v.forward.0", components["transformer"], contexts))
    inputs[0] = replace(inputs[0], latent=inputs[0].latent.contiguous())
    passes = list(phase.guidance.passes().values())
    velocities = components["transformer"](*inputs, passes, rows_at_once=rows_at_once)
    for number, velocity in enumerate(velocities):
        pack.assert_velocity(f"t2v.forward.{number}", velocity)


@pytest.mark.parametrize(
    "call", ["distilled.forward.1", "distilled.forward.8", "distilled_i2v.forward.8"]
)
def test_unguided_forwards(
    pack: VersionPack, components: dict, contexts: list[TextContext], call: str
) -> None:
    inputs = pack.inputs(call, components["transformer"], contexts[:1])
    (velocity,) = components["transformer"](*inputs)
    pack.assert_velocity(call, velocity)


@pytest.mark.parametrize("name", CASES)
def test_noise_and_levels(pack: VersionPack, name: str) -> None:
    """Bit for bit."""
    pack.assert_noise_alike(name, pack.resolved(name))


@pytest.mark.parametrize("name", ["t2v", "i2v", "distilled", "distilled_i2v", "hq"])
def test_what_the_first_act_begins_with(pack: VersionPack, name: str) -> None:
    """Bit for bit: noised tokens, their noise levels and positions."""
    pack.assert_begins_alike(name, pack.resolved(name))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_first_acts(
    pack: VersionPack, components: dict, contexts: list[TextContext], name: str
) -> None:
    request = pack.resolved(name)
    phase, model = request.phases[0], components["transformer"]
    if phase.phase.distilled:
        model = pack.with_distilled(model, phase.phase.distilled)
    made = denoise(request.request.seed, phase, model, pack.begin(name, request), contexts)
    pack.assert_ends_alike(name, "stage1", made)


def test_second_act(pack: VersionPack, components: dict, contexts: list[TextContext]) -> None:
    """From the recorded first act, with the distilled LoRA merged, text projections included."""
    request = pack.resolved("t2v")
    phase, noise = request.phases[1], NoiseSource(request.request.seed)
    for size in noise_sizes(request.phases[0].grid.tokens, 128, request.request.audio_tokens):
        noise.draw(*size)
    start = Latents(pack["t2v.upsampler.output"], pack["t2v.stage1.audio_latent"])
    tokens = prepare_latents(start, phase.grid, [], noise, phase.phase.noise_scale)
    model = pack.with_distilled(components["transformer"], 1.0)
    made = denoise(request.request.seed, phase, model, tokens, contexts)
    pack.assert_ends_alike("t2v", "stage2", made)


def test_vocoder() -> None:
    """HiFi-GAN, in the model's dtype, 240 samples for every frame of the spectrogram."""
    config = {"resblock": "1", "stereo": True, "upsample_initial_channel": 32}
    vocoder = LTX_2_0.builders["vocoder"](config, {})
    assert isinstance(vocoder, Vocoder)
    vocoder.to(LTX_2_0.dtype_of("vocoder", torch.bfloat16))
    assert vocoder.dtype is torch.bfloat16
    assert vocoder.sample_rate == 24_000
    waveform = vocoder(torch.randn(1, 2, 9, 64).bfloat16())
    assert waveform.shape == (1, 2, 9 * 240)
    assert waveform.abs().max() <= 1


def test_the_distilled_lora_fits_every_linear(pack: VersionPack, components: dict) -> None:
    factors = SafetensorsFile(pack.root / "distilled-lora.safetensors").tensors
    linears = {key.rsplit(".lora_", 1)[0] for key in factors}
    modules = components["transformer"].named_modules()
    ours = {f"diffusion_model.{n}" for n, each in modules if isinstance(each, torch.nn.Linear)}
    assert linears == ours


def test_a_checkpoint_may_lack_the_audio_encoder() -> None:
    """Only a sound that is given needs it."""
    build = LTX_2_0.builders["audio_vae"]
    names = AudioVae(demo_config.AUDIO_VAE).state_dict()
    whole = build(demo_config.AUDIO_VAE, dict.fromkeys(names, (1,)))
    decoder = {name: (1,) for name in names if not name.startswith("model.encoder.")}
    assert isinstance(whole, AudioVae)
    assert whole.encodes
    assert build(demo_config.AUDIO_VAE, decoder).state_dict().keys() == decoder.keys()
