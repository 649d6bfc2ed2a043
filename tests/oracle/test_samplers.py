"""Samplers, guidance and schedules against the official ones, bit for bit, without a model."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from entracte.recipes import Guidance
from entracte.sampling.denoiser import keep_clean
from entracte.sampling.euler import ancestral_euler
from entracte.sampling.guidance import Predictions, guide
from entracte.sampling.loop import SamplingLoop
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.schedules import USUAL_TOKENS, shifted_sigmas
from entracte.sampling.tokens import (
    KeptPart,
    StreamLatents,
    Tokens,
    VideoGrid,
    append_tokens,
    audio_spans,
    given_tokens,
    plain_tokens,
    replace_first_frame,
    video_tokens,
)

SEED = 10
LOOPS: dict[str, SamplingLoop] = {
    "euler": SAMPLERS["euler"].loop,
    "gradient_estimation": SAMPLERS["gradient-estimating-euler"].loop,
    "res2s": SAMPLERS["res-2s"].loop,
    "ancestral.eta1.0": SAMPLERS["ancestral-euler"].loop,
    "ancestral.eta0.5": partial(ancestral_euler, eta=0.5),
}
CASES = [
    *((name, levels) for name in ("euler", "gradient_estimation", "res2s")
      for levels in ("ltx2_5", "stage2", "ltx2_15_latent_16x17x30")),
    *((f"ancestral.{eta}", levels) for eta in ("eta1.0", "eta0.5")
      for levels in ("distilled", "stage2")),
]  # fmt: skip


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    root = Path(__file__).parent.parent / "data" / "pipelines"
    return load_file(root / "samplers.safetensors")


class StandIn:
    """A denoiser of plain arithmetic, which keeps what it is called with."""

    def __init__(self, recorded: dict[str, Tensor]) -> None:
        self._recorded = recorded
        self.calls: list[tuple[StreamLatents, Tensor]] = []

    def __call__(self, latents: StreamLatents, sigma: Tensor, wide: bool = False) -> StreamLatents:
        rounded = StreamLatents(*(each.bfloat16() for each in latents))
        self.calls.append((rounded, sigma))
        return StreamLatents(
            self._clean("video", rounded.video, sigma, wide),
            self._clean("audio", rounded.audio, sigma, wide),
        )

    def keep_clean(self, latents: StreamLatents) -> StreamLatents:
        return StreamLatents(self._keep("video", latents.video), self._keep("audio", latents.audio))

    def _clean(self, stream: str, x: Tensor, sigma: Tensor, wide: bool) -> Tensor:
        target = self._recorded[f"sampler.{stream}.target"].float()
        x0 = (0.6 * x.float() + 0.2 * target - 0.1 * sigma).bfloat16()
        return self._keep(stream, x0.float() if wide else x0)

    def _keep(self, stream: str, x: Tensor) -> Tensor:
        clean, mask = (
            self._recorded[f"sampler.{stream}.{what}"] for what in ("clean_latent", "denoise_mask")
        )
        return keep_clean(x, clean, mask)


@pytest.mark.parametrize(("name", "levels"), CASES)
def test_a_sampler_is_the_official_one(recorded: dict[str, Tensor], name: str, levels: str) -> None:
    denoise = StandIn(recorded)
    start = StreamLatents(recorded["sampler.video.latent"], recorded["sampler.audio.latent"])
    final = LOOPS[name](denoise, start, recorded[f"sigmas.{levels}"], SEED, lambda *_: None)

    sampler, _, eta = name.partition(".")
    prefix = ".".join(filter(None, (sampler, levels, eta)))
    assert f"{prefix}.call.{len(denoise.calls)}.sigma" not in recorded
    for number, (latents, sigma) in enumerate(denoise.calls):
        call = f"{prefix}.call.{number}"
        assert torch.equal(sigma.float(), recorded[f"{call}.sigma"]), number
        assert torch.equal(latents.video, recorded[f"{call}.video.latent"]), number
        assert torch.equal(latents.audio, recorded[f"{call}.audio.latent"]), number
    assert torch.equal(final.video, recorded[f"{prefix}.final.video"])
    assert torch.equal(final.audio, recorded[f"{prefix}.final.audio"])


def test_schedules_are_the_official_ones(recorded: dict[str, Tensor]) -> None:
    """But for a single step, which here goes the whole way from noise."""
    names = [name for name in recorded if name.startswith(("sigmas.default", "sigmas.latent"))]
    names.remove("sigmas.default_tokens.1")
    assert len(names) == 23
    for name in names:
        _, size, steps = name.split(".")
        places = size.removeprefix("latent_").split("x")
        tokens = USUAL_TOKENS if size == "default_tokens" else math.prod(map(int, places))
        if recorded[name].isnan().any():
            with pytest.raises(ValueError, match="63,240 tokens are too many"):
                shifted_sigmas(int(steps), tokens)
        else:
            assert torch.equal(shifted_sigmas(int(steps), tokens), recorded[name]), name


GRID = VideoGrid(3, 2, 3, 25.0)
LAYOUTS = {
    "first_frame_0.9": lambda video, image: replace_first_frame(video, image, 0.9),
    "keyframe_8_0.9": lambda video, image: append_tokens(video, image, 0.9, GRID.frame_spans(8)),
    "keyframe_0_0.7": lambda video, image: append_tokens(video, image, 0.7, GRID.frame_spans(0)),
    "keyframe_16_1.0": lambda video, image: append_tokens(video, image, 1.0, GRID.frame_spans(16)),
    "region_0.1_0.3": lambda video, _: given_tokens(
        video.latent, video.spans, KeptPart(((0.1, 0.3),))
    ),
}


REFERENCES = {"reference_latent": (1, 1), "half_reference_latent": (2, 1)}
REFERENCES["temporal_reference_latent"] = (1, 2)


def reference(
    video: Tokens, recorded: dict[str, Tensor], name: str, strength: float, weight: float | None
) -> Tokens:
    latent, scales = recorded[f"conditioning.{name}"], REFERENCES[name]
    spans = VideoGrid(*latent.shape[2:], GRID.frame_rate).reference_spans(*scales)
    weights = None if weight is None else torch.full((spans.shape[1],), weight).bfloat16()
    return append_tokens(video, video_tokens(latent), strength, spans, weights)


# The items of `samplers.json`: references by name, strength and weight; images by frame.
WITH_REFERENCES: dict[str, list[Any]] = {
    "reference_1.0": [("reference_latent", 1.0, None)],
    "reference_half_0.8": [("half_reference_latent", 0.8, None)],
    "reference_temporal_2": [("temporal_reference_latent", 1.0, None)],
    "reference_attn_0.5": [("reference_latent", 1.0, 0.5)],
    "image_ref_attn_ref_key": [
        "first",
        ("reference_latent", 1.0, 0.5),
        ("half_reference_latent", 1.0, None),
        (8, 0.6),
    ],
    "key_then_ref_attn_0.25": [(8, 0.6), ("reference_latent", 1.0, 0.25)],
    "two_masked": [("reference_latent", 1.0, 0.5), ("half_reference_latent", 1.0, 0.0)],
}


@pytest.mark.parametrize("name", WITH_REFERENCES)
def test_references_are_laid_out_as_the_official_ones(
    recorded: dict[str, Tensor], name: str
) -> None:
    tokens = plain_tokens(torch.zeros(1, GRID.tokens, 16).bfloat16(), GRID.spans())
    image = video_tokens(recorded["conditioning.image_latent"])
    for item in WITH_REFERENCES[name]:
        match item:
            case "first":
                tokens = replace_first_frame(tokens, image, 1.0)
            case (int(frame), strength):
                tokens = append_tokens(tokens, image, strength, GRID.frame_spans(frame))
            case (latent, strength, weight):
                tokens = reference(tokens, recorded, latent, strength, weight)
    prefix = f"conditioning.{name}"
    assert torch.equal(tokens.mask, recorded[f"{prefix}.denoise_mask"][0, :, 0])
    assert torch.equal(tokens.spans, recorded[f"{prefix}.positions"][0])
    assert torch.equal(tokens.latent, recorded[f"{prefix}.latent"])
    assert torch.equal(tokens.clean, recorded[f"{prefix}.clean_latent"])
    assert tokens.own == GRID.tokens
    assert (tokens.attention is None) == (f"{prefix}.attention_mask" not in recorded)
    if tokens.attention is not None:
        assert torch.equal(tokens.attention, recorded[f"{prefix}.attention_mask"][0])


@pytest.mark.parametrize("name", [*LAYOUTS, "audio_plain", "audio_region_0.2_0.5"])
def test_tokens_are_laid_out_as_the_official_ones(recorded: dict[str, Tensor], name: str) -> None:
    if name in LAYOUTS:
        plain = plain_tokens(torch.zeros(1, GRID.tokens, 16).bfloat16(), GRID.spans())
        tokens = LAYOUTS[name](plain, video_tokens(recorded["conditioning.image_latent"]))
    else:
        latent, spans = torch.zeros(1, 20, 128).bfloat16(), audio_spans(20)
        tokens = plain_tokens(latent, spans)
        if name != "audio_plain":
            tokens = given_tokens(latent, spans, KeptPart(((0.2, 0.5),)))
    official = {
        what: recorded[f"conditioning.{name}.{what}"]
        for what in ("latent", "clean_latent", "denoise_mask", "positions")
    }
    assert torch.equal(tokens.mask, official["denoise_mask"][0, :, 0])
    assert torch.equal(tokens.spans, official["positions"][0])
    if "region" not in name:  # there it is what is given, and here zeros
        assert torch.equal(tokens.latent, official["latent"])
        assert torch.equal(tokens.clean, official["clean_latent"])


GUIDED = {
    "video": Guidance(cfg=3.0, stg=1.0, rescale=0.7, modality=3.0),
    "audio": Guidance(cfg=7.0, stg=1.0, rescale=0.7, modality=3.0),
    "hq_video": Guidance(cfg=3.0, stg=0.0, rescale=0.45, modality=3.0),
    "hq_audio": Guidance(cfg=7.0, stg=0.0, rescale=1.0, modality=3.0),
    "no_rescale": Guidance(cfg=4.0, stg=0.5, rescale=0.0, modality=1.0),
}


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_is_the_official_one(recorded: dict[str, Tensor], name: str) -> None:
    parts = ("cond", "uncond", "perturbed", "isolated")
    predictions = Predictions(*(recorded[f"guider.{part}"].float() for part in parts))
    assert torch.equal(
        guide(predictions, GUIDED[name]).bfloat16(), recorded[f"guider.result.{name}"]
    )
