"""The recorded cases of further recipes through the engine, and their noise and noise levels."""

import wave
from dataclasses import replace
from typing import Any

import pytest
import torch

from entracte import (
    ControlVideo,
    Engine,
    ImageCondition,
    LoraSpec,
    Request,
    SoundCondition,
    SourceVideo,
)
from entracte.media.read_sound import read_sound
from entracte.models.audio_vae import AudioVae
from entracte.models.mel import log_mel
from entracte.pipeline.conditions import EncodedImage
from entracte.pipeline.given import encode_sound
from entracte.pipeline.latents import Latents, empty_latents, prepare_latents
from entracte.pipeline.references import EncodedControl
from entracte.sampling.noise import NoiseSource, WhitenedNoise
from entracte.sampling.res_2s import MIDDLE_SEED, STEP_SEED
from entracte.sampling.tokens import KeptPart
from tests.components import load_component

from .oracle import ROOT, Recorded, distance, request_of

DATA = ROOT.parent / "pipelines"
LORAS = {
    "style-lora.safetensors": ROOT.parent / "merges" / "style-lora.safetensors",
    **{
        name: DATA / name
        for name in (
            "ic-lora.safetensors",
            "ic-lora-half.safetensors",
            "ic-lora-temporal.safetensors",
        )
    },
}
IMAGES = {"image.png": ROOT / "image.png", "image2.png": DATA / "image2.png"}
PIPELINES = {
    "two_stage_hq": "hq",
    "keyframe_interpolation": "keyframes",
    "a2vid_two_stage": "audio-to-video",
    "two_stage": "two-stage",
    "one_stage": "one-stage",
    "distilled": "distilled",
    "ic_lora": "ic-lora",
}
LORA_CASES = ("one_stage_lora", "distilled_lora", "two_stage_lora")
IC_LORA_CASES = (
    "ic_lora_mask",
    "ic_lora",
    "ic_lora_strength",
    "ic_lora_half",
    "ic_lora_temporal",
)
RETAKES = ("retake_video_audio", "retake_audio_only", "retake_video_only", "retake_guided")
CASES = (*RETAKES, "hq", "hq_i2v", "interpolate", "a2v", "a2v_image", *LORA_CASES)
CASES = (*CASES, *IC_LORA_CASES)

QUICK = ("hq", "a2v_image", "retake_video_only")


class Pack(Recorded):
    """The recorded cases of further recipes."""

    def __init__(self) -> None:
        super().__init__(DATA)

    def first_calls(self, name: str) -> list[int]:
        """Of every act, the number of the first call of the transformer."""
        prefix, suffix = f"{name}.forward.", ".video.sigma"
        calls = sorted(
            int(each.removeprefix(prefix).removesuffix(suffix))
            for each in self.names
            if each.startswith(prefix) and each.endswith(suffix)
        )
        return [call for call in calls if call == 0 or call - 1 not in calls]

    def request(self, name: str) -> Request:
        case = self.case(name)
        if case["pipeline"] == "retake":
            return retake(case)
        half = case.get("skip_stage_2", False)
        pipeline = "ic-lora-one-stage" if half else PIPELINES[case["pipeline"]]
        return request_of(
            case,
            pipeline=pipeline,
            height=case["height"] // (2 if half else 1),
            width=case["width"] // (2 if half else 1),
            images=tuple(ImageCondition(IMAGES[path], *how) for path, *how in case["images"]),
            loras=tuple(
                LoraSpec(LORAS[path], strength) for path, strength in case.get("loras", ())
            ),
            controls=controls(case),
            sound=SoundCondition(DATA / case["audio"], case["audio_start_time"])
            if "audio" in case
            else None,
        )


def controls(case: dict[str, Any]) -> tuple[ControlVideo, ...]:
    mask = case.get("conditioning_attention_mask")
    return tuple(
        ControlVideo(
            DATA / path,
            strength,
            case["conditioning_attention_strength"],
            None if mask is None else DATA / mask,
        )
        for path, strength in case.get("video_conditioning", ())
    )


def retake(case: dict[str, Any]) -> Request:
    """Of the distilled ones, the recipe has the distilled LoRA, which the case lists."""
    remake = {(True, True): "both", (False, True): "sound", (True, False): "picture"}
    made = remake[case["regenerate_video"], case["regenerate_audio"]]
    return request_of(
        case,
        pipeline="retake" if case["distilled"] else "retake-guided",
        source=SourceVideo(DATA / case["video"], case["start_time"], case["end_time"], made),
    )


@pytest.fixture(scope="module")
def pack() -> Pack:
    return Pack()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES]
)
def test_latents_and_forwards(pack: Pack, engine: Engine, name: str) -> None:
    result = engine.generate(pack.request(name), keep_frames=False)
    assert result.trace.counts["forwards"] == pack.case(name)["forwards"]
    for latent, value in result.latents.items():
        assert distance(value, pack[f"{name}.{latent}"]) < pack.tolerance(name, latent), latent
    if pack.case(name).get("audio") is None:
        assert result.audio.shape[-1] == pack.case(name)["waveform_shape"][-1]
    assert result.sample_rate == pack.case(name)["sample_rate"]


@pytest.mark.parametrize(
    "name", ["hq", "hq_i2v", "interpolate", "a2v", "a2v_image", *IC_LORA_CASES]
)
def test_what_each_act_begins_with(pack: Pack, engine: Engine, name: str) -> None:
    """Bit for bit: noised tokens, their noise levels and positions, from recorded latents."""
    resolved = engine.prepare(pack.request(name)).resolved
    request, cpu = resolved.request, torch.device("cpu")
    noise, images = NoiseSource(request.seed), iter(range(9))
    first_calls = pack.first_calls(name)
    assert len(first_calls) == len(resolved.phases)
    given = engine.prepare(pack.request(name)).given.controls
    for phase, call in zip(resolved.phases, first_calls, strict=True):
        if phase.phase.name == "stage1":
            start = empty_latents(phase.grid, 128, request.audio_tokens, cpu, torch.bfloat16)
            if request.sound is not None:
                start = replace(start, audio=pack[f"{name}.stage1.audio_latent"])
        else:
            start = Latents(pack[f"{name}.upsampler.output"], pack[f"{name}.stage1.audio_latent"])
        encoded = [
            EncodedImage(pack[f"{name}.image.{next(images)}.latent"], image.frame, image.strength)
            for image in request.images
        ]
        tokens = prepare_latents(
            start,
            phase.grid,
            encoded,
            noise,
            phase.phase.noise_scale,
            request.recipe.appends_first_image,
            (None, KeptPart() if request.sound is not None else None),
            [
                EncodedControl(
                    pack[f"{name}.conditioning_video.{at}.latent"],
                    control.weights,
                    control.reference,
                )
                for at, control in enumerate(given)
                if phase.references
            ],
        )
        official_attention = f"{name}.forward.{call}.video.attention_mask"
        assert (tokens[0].attention is None) == (official_attention not in pack.names)
        if tokens[0].attention is not None:
            assert torch.equal(tokens[0].attention, pack[official_attention][0])
        for stream, each in zip(("video", "audio"), tokens, strict=True):
            recorded = f"{name}.forward.{call}.{stream}"
            assert torch.equal(each.latent, pack[f"{recorded}.latent"])
            levels = each.mask * torch.tensor(phase.sigmas[0])
            assert torch.equal(levels, pack[f"{recorded}.timesteps"][0, :, 0])
            assert torch.equal(each.spans, pack[f"{recorded}.positions"][0])


def test_a_source_is_read_as_the_official_pipeline_does(pack: Pack, engine: Engine) -> None:
    """Bit for bit: pixels, samples, noised tokens, and which of them stay."""
    for name in RETAKES:
        prepared = engine.prepare(pack.request(name))
        request, given = prepared.resolved.request, prepared.given
        assert (request.height, request.width, request.num_frames) == (96, 128, 17)
        assert given.notices == ()
        assert given.frames is not None
        assert given.mel is not None
        assert torch.equal(given.frames, pack[f"{name}.conditioning_video.0.pixels"])
        assert distance(given.mel, pack[f"{name}.audio.mel"]) < 1e-5
        start = Latents(pack[f"{name}.conditioning_video.0.latent"], pack[f"{name}.audio.latent"])
        (phase,) = prepared.resolved.phases
        noise, kept = NoiseSource(request.seed), (given.video, given.audio)
        tokens = prepare_latents(start, phase.grid, [], noise, phase.phase.noise_scale, kept=kept)
        for stream, each in zip(("video", "audio"), tokens, strict=True):
            recorded = f"{name}.forward.0.{stream}"
            assert torch.equal(each.latent, pack[f"{recorded}.latent"])
            assert torch.equal(each.mask * phase.sigmas[0], pack[f"{recorded}.timesteps"][0, :, 0])
            assert each.frozen == (pack[f"{recorded}.sigma"].item() == 0)


def test_a_control_video_is_read_as_the_official_pipeline_does(pack: Pack, engine: Engine) -> None:
    """Bit for bit, for an IC-LoRA that looks at half of its height and width."""
    (control,) = engine.prepare(pack.request("ic_lora_half")).given.controls
    assert torch.equal(control.pixels, pack["ic_lora_half.conditioning_video.0.pixels"])


@pytest.mark.parametrize("name", ["a2v", "a2v_image"])
def test_sound_as_it_is_heard(pack: Pack, engine: Engine, name: str) -> None:
    """The whole file, as the official pipeline reads it, and then what a request reads of it."""
    case = pack.case(name)
    path, start = DATA / case["audio"], case["audio_start_time"]
    sound = read_sound(path, start, 10.0)
    assert [*sound.samples.shape] == case["waveform_shape"]
    with wave.open(str(path)) as file:
        data = file.readframes(file.getnframes())
    samples = torch.frombuffer(bytearray(data), dtype=torch.int16).view(-1, 2).T / 2**15
    assert torch.equal(sound.samples, samples[:, round(start * sound.rate) :])
    mel = log_mel(sound.samples, sound.rate)
    assert distance(mel, pack[f"{name}.audio.mel"]) < 1e-5

    prepared = engine.prepare(pack.request(name))
    assert prepared.given.heard is not None
    assert prepared.given.mel is not None
    assert torch.equal(
        prepared.given.heard.samples, sound.samples[:, : round(17 / 24 * sound.rate)]
    )
    source = engine.source.components["audio_vae"]
    vae = load_component(source, torch.device("cpu"), torch.bfloat16)
    assert isinstance(vae, AudioVae)
    latents = pack[f"{name}.audio.latent"]
    assert distance(encode_sound(vae, mel.bfloat16(), latents.shape[2]), latents) < 2e-2
    tokens = prepared.resolved.request.audio_tokens
    heard = encode_sound(vae, prepared.given.mel.bfloat16(), tokens)
    assert distance(heard, latents[:, :, :tokens]) < 2e-2


@pytest.mark.parametrize("name", CASES)
def test_noise_and_levels(pack: Pack, engine: Engine, name: str) -> None:
    """Bit for bit, and the noise of the sampler, too."""
    pack.assert_noise_alike(name, engine.prepare(pack.request(name)).resolved)
    cpu = torch.device("cpu")
    middle, step = WhitenedNoise(MIDDLE_SEED, cpu), WhitenedNoise(STEP_SEED, cpu)
    for number, noise in enumerate((middle, middle, step, step)):
        recorded = f"{name}.sde_noise.{number}"
        if recorded in pack.names:
            assert torch.equal(noise.draw(*pack[recorded].shape[1:]), pack[recorded])
