"""A sampler is a loop over a denoiser, whatever that is; a denoiser is a phase's transformer."""

from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from entracte import Guidance, Request
from entracte.models.connectors import TextContext
from entracte.models.transformer import Transformer, TransformerConfig
from entracte.planner.workload import Workload
from entracte.recipes import RECIPES, SamplerName
from entracte.sampling.denoiser import UNGUIDED, Denoiser, GuidancePlan
from entracte.sampling.euler import euler
from entracte.sampling.loop import Denoise, OnStep, Sampler
from entracte.sampling.noise import NoiseSource
from entracte.sampling.samplers import SAMPLERS
from entracte.sampling.schedules import shifted_sigmas
from entracte.sampling.tokens import (
    StreamLatents,
    Tokens,
    VideoGrid,
    audio_spans,
    plain_tokens,
    replace_first_frame,
)
from entracte.synthetic import demo_config
from tests.planner.meta_run import prepared

GRID = VideoGrid(2, 2, 3, 24.0)
AUDIO = 5
GUIDANCE = Guidance(cfg=3.0, stg=1.0, modality=3.0, rescale=0.7, stg_blocks=(2,))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(TransformerConfig.from_header(demo_config.TRANSFORMER))
    for parameter in model.parameters():
        parameter.requires_grad_(False).normal_(0, 0.1)
    return model.eval().bfloat16()


def tokens(image: bool = False) -> tuple[Tokens, Tokens]:
    torch.manual_seed(1)
    video = plain_tokens(torch.randn(1, GRID.tokens, 128).bfloat16(), GRID.spans())
    if image:
        video = replace_first_frame(video, torch.full((1, GRID.frame_tokens, 128), 0.5), 1.0)
    return video, plain_tokens(torch.randn(1, AUDIO, 128).bfloat16(), audio_spans(AUDIO))


def denoiser(
    model: Transformer,
    video: Tokens,
    audio: Tokens,
    plan: GuidancePlan = UNGUIDED,
    rows_at_once: int = 1,
) -> Denoiser:
    torch.manual_seed(2)
    contexts = [
        TextContext(torch.randn(1, 1024, 128).bfloat16(), torch.randn(1, 1024, 64).bfloat16())
        for _ in range(2 if "unconditioned" in plan.passes() else 1)
    ]
    rotary = model.rotary(video.positions, audio.positions, CPU, torch.bfloat16)
    return Denoiser(model, video, audio, contexts, rotary, plan, rows_at_once)


def stepping(wanted: list[int]):
    return lambda step, clean: wanted.append(step)


def test_euler_needs_no_model() -> None:
    """Of a denoiser that always says the same, the last step takes both streams there."""
    target = StreamLatents(torch.full((1, 4, 2), 3.0), torch.full((1, 2, 2), -1.0))
    seen: list[float] = []

    def denoise(latents: StreamLatents, sigma: Tensor) -> StreamLatents:
        seen.append(sigma.item())
        return target

    steps: list[int] = []
    start = StreamLatents(torch.randn(1, 4, 2), torch.randn(1, 2, 2))
    sigmas = shifted_sigmas(5)
    final = euler(denoise, start, sigmas, 0, stepping(steps))
    assert torch.allclose(final.video, target.video, atol=1e-5)
    assert torch.allclose(final.audio, target.audio, atol=1e-5)
    assert seen == sigmas[:-1].tolist()
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_sampler_evaluates_as_often_as_it_says(name: str, steps: int) -> None:
    class Counting:
        calls = 0

        def __call__(
            self, latents: StreamLatents, sigma: Tensor, wide: bool = False
        ) -> StreamLatents:
            self.calls += 1
            return latents

        def keep_clean(self, latents: StreamLatents) -> StreamLatents:
            return latents

    denoise, seen = Counting(), list[int]()
    start = StreamLatents(torch.randn(1, 4, 2), torch.randn(1, 2, 2))
    SAMPLERS[name].loop(denoise, start, shifted_sigmas(steps), 0, stepping(seen))
    assert denoise.calls == SAMPLERS[name].evaluations(steps)
    assert seen == list(range(1, steps + 1))


def test_recipes_name_samplers_that_there_are() -> None:
    assert set(get_args(SamplerName)) == set(SAMPLERS)
    assert {phase.sampler for recipe in RECIPES.values() for phase in recipe.phases} <= set(
        SAMPLERS
    )


def test_more_evaluations_are_planned_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device manager's sweeps, the planner's work and the progress all count them."""
    request = Request(prompt="any", height=128, width=128, num_frames=9, num_inference_steps=4)
    once = prepared(request, 4).resolved
    more = Sampler(euler, evaluations_per_step=2, extra_evaluations=1)
    monkeypatch.setattr("entracte.pipeline.resolve.SAMPLERS", {"euler": more})
    ready = prepared(request, 4).resolved

    assert [phase.sweeps for phase in ready.weight_phases] == [9, 7]
    assert [phase.evaluations for phase in Workload.of(ready, 0).phases] == [9, 7]
    assert [phase.steps for phase in Workload.of(ready, 0).phases] == [4, 3]
    assert [phase.evaluations for phase in Workload.of(once, 0).phases] == [4, 3]
    first, second = ready.phases
    assert first.forwards == 4 * 9
    assert ready.work > 2 * once.work
    assert ready.work == pytest.approx(4 * first.step_work + 3 * second.step_work)


@pytest.mark.parametrize("plan", [UNGUIDED, GuidancePlan(GUIDANCE, GUIDANCE)])
def test_a_sampler_may_keep_its_state_in_float64(model: Transformer, plan: GuidancePlan) -> None:
    """The model sees it rounded; the estimate is what it makes of that, in its own dtype."""
    video, audio = tokens(image=True)
    denoise, sigma = denoiser(model, video, audio, plan), torch.tensor([0.7])
    rounded = StreamLatents(video.latent, audio.latent)
    wide = StreamLatents(*(each.double() + 1e-9 for each in rounded))
    for one, other in zip(denoise(rounded, sigma), denoise(wide, sigma), strict=True):
        assert one.dtype is torch.bfloat16
        assert torch.equal(one, other)


def test_clean_tokens_are_part_of_every_estimate(model: Transformer) -> None:
    video, audio = tokens(image=True)
    denoise = denoiser(model, video, audio, GuidancePlan(GUIDANCE, GUIDANCE))
    for level in (1.0, 0.4):
        clean = denoise(StreamLatents(video.latent, audio.latent), torch.tensor([level]))
        assert torch.equal(clean.video[:, : GRID.frame_tokens], video.clean[:, : GRID.frame_tokens])
        assert not torch.equal(clean.video, video.clean)


def test_a_denoiser_remembers_nothing(model: Transformer) -> None:
    """So a sampler may evaluate at any latents and levels, in any order, as often as it likes."""
    video, audio = tokens(image=True)
    denoise = denoiser(model, video, audio, GuidancePlan(GUIDANCE, GUIDANCE), rows_at_once=2)
    latents = StreamLatents(video.latent, audio.latent)
    before = [each.clone() for each in latents]
    first = denoise(latents, torch.tensor([0.9]))
    denoise(StreamLatents(*(each * 0.5 for each in latents)), torch.tensor([0.2]))
    again = denoise(latents, torch.tensor([0.9]))
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, latents, before))


def test_a_sampler_may_draw_noise_in_its_loop(model: Transformer) -> None:
    """Two evaluations a step, noise of its own seed, a float64 state: what later ones need."""

    def stochastic(
        denoise: Denoise,
        latents: StreamLatents,
        sigmas: Tensor,
        seed: int,
        on_step: OnStep,
    ) -> StreamLatents:
        source = NoiseSource(seed + 1)
        state = StreamLatents(*(each.double() for each in latents))
        for step, (sigma, following) in enumerate(pairwise(sigmas), 1):
            middle = denoise(state, sigma.double().view(1))
            clean = denoise(middle, sigma.view(1))
            noise = [source.draw(*each.shape[1:]).double() for each in state]
            state = StreamLatents(*(x0 + following * n for x0, n in zip(clean, noise, strict=True)))
            on_step(step, clean.video)
        return StreamLatents(*(each.to(latents.video.dtype) for each in state))

    video, audio = tokens()
    sampler = Sampler(stochastic, evaluations_per_step=2)
    start, sigmas = StreamLatents(video.latent, audio.latent), shifted_sigmas(2)

    def run(seed: int) -> StreamLatents:
        return sampler.loop(denoiser(model, video, audio), start, sigmas, seed, stepping([]))

    assert all(map(torch.equal, run(5), run(5)))
    assert not torch.equal(run(5).video, run(6).video)
