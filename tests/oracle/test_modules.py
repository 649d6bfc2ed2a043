"""Every component alone, in float32, equals the official one."""

import pytest
import torch

from entracte.checkpoints.published import open_checkpoint, open_upsampler
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.models.connectors import TextContext
from entracte.models.transformer import Pass, Transformer
from entracte.pipeline.latents import upsample
from tests.components import load_component

from .oracle import FLOAT32, ROOT, Oracle, distance

# The vocoder's random weights multiply every difference in summing: computed in float64, the same
# model is 2.8e-4 from the oracle, and in float32 on a CPU with AVX512-BF16 3.7e-4.
WAVEFORM = 1e-3

BLOCK = frozenset([1])
PASSES = {
    "plain": Pass(),
    "self_attention_skipped": Pass(skip_video=BLOCK, skip_audio=BLOCK),
    "modalities_isolated": Pass(isolated=True),
}


@pytest.fixture(scope="module")
def components():
    _, found = open_checkpoint([SafetensorsFile(ROOT / "checkpoint.safetensors")])
    found["upsampler"] = open_upsampler(SafetensorsFile(ROOT / "spatial-upscaler-x2.safetensors"))
    names = ("video_vae", "audio_vae", "vocoder", "upsampler")
    return {n: load_component(found[n], torch.device("cpu"), torch.float32) for n in names}


@pytest.mark.parametrize("rows_at_once", [1, 2, 3])
def test_transformer(oracle: Oracle, float32_transformer: Transformer, rows_at_once: int) -> None:
    call = "module.transformer"
    context = TextContext(oracle[f"{call}.video.context"], oracle[f"{call}.audio.context"])
    inputs = oracle.inputs(call, float32_transformer, [context])
    velocities = float32_transformer(*inputs, list(PASSES.values()), rows_at_once=rows_at_once)
    for name, velocity in zip(PASSES, velocities, strict=True):
        assert distance(velocity.video, oracle[f"{call}.{name}.video.velocity"]) < FLOAT32
        assert distance(velocity.audio, oracle[f"{call}.{name}.audio.velocity"]) < FLOAT32


@pytest.mark.slow
def test_video_vae(oracle: Oracle, components) -> None:
    vae = components["video_vae"]
    pixels = vae.decode(oracle["module.video_decoder.input"])
    assert distance(pixels, oracle["module.video_decoder.output"]) < FLOAT32
    latents = vae.encode(oracle["module.video_encoder.input"])
    assert distance(latents, oracle["module.video_encoder.output"]) < FLOAT32


def test_upsampler(oracle: Oracle, components) -> None:
    latents = upsample(
        components["upsampler"], components["video_vae"], oracle["module.upsampler.input"]
    )
    assert distance(latents, oracle["module.upsampler.output"]) < FLOAT32


def test_audio(oracle: Oracle, components) -> None:
    mel = components["audio_vae"].decode(oracle["module.audio_decoder.input"])
    assert distance(mel, oracle["module.audio_decoder.mel"]) < FLOAT32
    waveform = components["vocoder"](oracle["module.audio_decoder.mel"])
    assert distance(waveform[0], oracle["module.audio_decoder.waveform"]) < WAVEFORM
