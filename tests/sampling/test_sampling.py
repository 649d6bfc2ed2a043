import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entracte.recipes import Guidance
from entracte.sampling.denoiser import denoised, keep_clean
from entracte.sampling.euler import euler_step
from entracte.sampling.guidance import Predictions, guide
from entracte.sampling.noise import NoiseSource
from entracte.sampling.schedules import shifted_sigmas
from entracte.sampling.tokens import (
    VideoGrid,
    add_noise,
    append_tokens,
    audio_latent,
    audio_tokens,
    plain_tokens,
    replace_first_frame,
    video_latent,
    video_tokens,
)


@given(steps=st.integers(2, 500))
def test_sigmas_fall_from_one_to_a_tenth_to_zero(steps: int) -> None:
    sigmas = shifted_sigmas(steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(1.0, abs=1e-6)
    assert sigmas[-2] == pytest.approx(0.1, abs=1e-6)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_the_published_thirty_steps() -> None:
    sigmas = shifted_sigmas(30)
    expected = [1, 0.99496, 0.98960]
    assert sigmas[:3].tolist() == pytest.approx(expected, abs=1e-5)
    assert sigmas[-4:].tolist() == pytest.approx([0.38754, 0.26612, 0.1, 0], abs=1e-5)


def test_one_step_is_possible() -> None:
    sigmas = shifted_sigmas(1)
    assert sigmas.isfinite().all()
    assert sigmas.tolist() == pytest.approx([1.0, 0.0])


@given(sigma=st.floats(0.05, 1.0), following=st.floats(0, 1))
def test_euler_follows_the_straight_path(sigma: float, following: float) -> None:
    """From x0 + sigma * v, a step to any level lands on x0 + level * v."""
    x0, v = torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    level, target = torch.tensor([sigma]), torch.tensor([following])
    x = x0 + v * level
    found = denoised(x, v, level.view(1, 1, 1))
    assert torch.allclose(found, x0, atol=1e-5)
    assert torch.allclose(euler_step(x, found, level, target), x0 + v * target, atol=1e-3)


def test_clean_tokens_stay() -> None:
    mask = torch.tensor([0.0, 1.0]).view(1, 2, 1)
    x0, clean = torch.ones(1, 2, 3), torch.full((1, 2, 3), 5.0)
    kept = keep_clean(x0, clean, mask)
    assert kept[0, 0].tolist() == [5.0] * 3
    assert kept[0, 1].tolist() == [1.0] * 3


def test_guidance_formula() -> None:
    c, n, p, m = (torch.randn(1, 4, 3) for _ in range(4))
    guidance = Guidance(cfg=3, stg=0.5, modality=2, rescale=0.7)
    raw = c + 2 * (c - n) + 0.5 * (c - p) + 1 * (c - m)
    expected = raw * (0.7 * c.std() / raw.std() + 0.3)
    assert torch.allclose(guide(Predictions(c, n, p, m), guidance), expected, atol=1e-5)


def test_no_guidance_changes_nothing() -> None:
    c = torch.randn(1, 4, 3)
    assert torch.equal(guide(Predictions(c), Guidance()), c)


def test_noise_is_drawn_in_order() -> None:
    one, two = NoiseSource(7), NoiseSource(7)
    first = one.draw(4, 128)
    assert torch.equal(first, two.draw(4, 128))
    assert torch.equal(one.draw(3, 128), two.draw(3, 128))
    assert not torch.equal(first, one.draw(4, 128))
    assert first.dtype is torch.bfloat16


@given(
    frames=st.integers(1, 20),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    rate=st.floats(1, 120),
)
def test_time_is_covered_without_gaps(frames: int, height: int, width: int, rate: float) -> None:
    grid = VideoGrid(frames, height, width, rate)
    spans = grid.spans()
    assert spans.shape == (3, grid.tokens, 2)
    time = spans[0, :: grid.frame_tokens]
    assert time[0].tolist() == [0.0, pytest.approx(1 / rate)]
    assert torch.equal(time[1:, 0], time[:-1, 1])
    assert time[-1, 1].item() == pytest.approx((8 * (frames - 1) + 1) / rate, rel=1e-5)


def test_latents_and_tokens_are_inverse() -> None:
    grid = VideoGrid(2, 3, 4, 24.0)
    video, audio = torch.randn(1, 128, 2, 3, 4), torch.randn(1, 8, 5, 16)
    assert torch.equal(video_latent(video_tokens(video), grid), video)
    assert torch.equal(audio_latent(audio_tokens(audio)), audio)


def test_images_take_their_places() -> None:
    grid = VideoGrid(2, 2, 2, 24.0)
    tokens = plain_tokens(torch.zeros(1, 8, 4), grid.spans())
    image = torch.full((1, 4, 4), 3.0)
    tokens = replace_first_frame(tokens, image, strength=1.0)
    tokens = append_tokens(tokens, 2 * image, strength=0.7, spans=grid.frame_spans(8))
    assert tokens.mask.tolist() == [0.0] * 4 + [1.0] * 4 + [0.30078125] * 4  # 0.3 in bfloat16
    noisy = add_noise(tokens, torch.ones(1, 12, 4), 1.0)
    assert noisy.latent[0, :4].unique().tolist() == [3.0]
    assert noisy.latent[0, 4:8].unique().tolist() == [1.0]
    expected = 6 + (1 - 6) * 0.30078125
    assert math.isclose(noisy.latent[0, -1, 0].item(), expected, rel_tol=1e-6)
    assert tokens.spans[0, -1].tolist() == pytest.approx([8 / 24, 9 / 24])
