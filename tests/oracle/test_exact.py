"""What must equal the official implementation bit for bit: noise, sigmas, positions, merges."""

import pytest
import torch

from entracte.checkpoints.lora import open_lora
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.media.images import fit, recompress
from entracte.media.read_image import read_image
from entracte.recipes import DISTILLED
from entracte.residency.merge import merge
from entracte.sampling.lengths import audio_token_count
from entracte.sampling.noise import NoiseSource
from entracte.sampling.schedules import shifted_sigmas
from entracte.sampling.tokens import VideoGrid, audio_spans
from tests.components import read_changes

from .oracle import CASES, ROOT, Oracle


@pytest.mark.parametrize("name", CASES)
def test_noise(oracle: Oracle, name: str) -> None:
    source = NoiseSource(oracle.case(name)["seed"])
    draws = [n for n in sorted(oracle.names) if n.startswith(f"{name}.noise.")]
    assert len(draws) == (2 if name == "one_stage" else 4)
    for draw in draws:
        expected = oracle[draw]
        assert torch.equal(source.draw(*expected.shape[1:]), expected)


@pytest.mark.parametrize("name", CASES)
def test_first_sigma(oracle: Oracle, name: str) -> None:
    steps = oracle.case(name).get("num_inference_steps")
    sigmas = torch.tensor(DISTILLED) if steps is None else shifted_sigmas(steps)
    assert torch.equal(sigmas[:1], oracle[f"{name}.forward.0.video.sigma"])


def test_distilled_sigmas(oracle: Oracle) -> None:
    recorded = [oracle[f"distilled.forward.{i}.video.sigma"].item() for i in range(4)]
    assert recorded == torch.tensor(DISTILLED[:4]).tolist()


@pytest.mark.parametrize("name", CASES)
def test_positions(oracle: Oracle, name: str) -> None:
    case = oracle.case(name)
    divisor = 1 if name == "one_stage" else 2
    frames, rate = case["num_frames"], case["frame_rate"]
    grid = VideoGrid.of_pixels(frames, case["height"] // divisor, case["width"] // divisor, rate)
    spans = [grid.spans()]
    spans += [grid.frame_spans(frame) for _, frame, *_ in case["images"] if frame > 0]
    assert torch.equal(torch.cat(spans, dim=1), oracle[f"{name}.forward.0.video.positions"][0])
    audio = audio_spans(audio_token_count(frames, rate))
    assert torch.equal(audio, oracle[f"{name}.forward.0.audio.positions"][0])


@pytest.mark.parametrize("strength", ["0.5", "1.0"])
def test_merged_weights(oracle: Oracle, strength: str) -> None:
    _, components = open_checkpoint([SafetensorsFile(ROOT / "checkpoint.safetensors")])
    tensors = components["transformer"].tensors
    shapes = {"transformer": {name: each.info.shape for name, each in tensors.items()}}
    lora = open_lora(SafetensorsFile(ROOT / "distilled-lora.safetensors"), shapes)
    changes = read_changes(lora)
    prefix = f"module.merged.{strength}."
    recorded = [name for name in oracle.names if name.startswith(prefix)]
    assert len(recorded) == 3
    for name in recorded:
        weight = name.removeprefix(prefix)
        merged = merge(tensors[weight].tensor(), [(changes[weight], float(strength))])
        assert torch.equal(merged, oracle[name])


@pytest.mark.parametrize("name", ["i2v", "keyframes"])
def test_image_pixels(oracle: Oracle, name: str) -> None:
    images = oracle.case(name)["images"]
    for number in range(2 * len(images)):
        path, _, _, crf = images[number % len(images)]
        expected = oracle[f"{name}.image.{number}.pixels"]
        pixels = fit(recompress(read_image(ROOT / path), crf), *expected.shape[-2:])
        assert torch.equal(pixels.bfloat16(), expected)
