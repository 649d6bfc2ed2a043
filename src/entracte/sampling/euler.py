"""Samplers with one evaluation a step: Euler's, and two that change its estimate or its noise."""

from torch import Tensor

from .loop import Denoise, OnStep
from .noise import NoiseSource
from .tokens import StreamLatents

# How far gradient estimation goes beyond the last change of the slope.
GAMMA = 2.0

# Ancestral noise has a seed of its own: the request's, and this.
ANCESTRAL_SEED = 10_000


def euler(
    denoise: Denoise, latents: StreamLatents, sigmas: Tensor, _seed: int, on_step: OnStep
) -> StreamLatents:
    """Euler steps of a rectified flow. Source: arXiv 2206.00364, algorithm 1, first order."""
    levels = sigmas.to(latents.video.device)
    for step in range(len(sigmas) - 1):
        sigma, next_sigma = levels[step : step + 1], levels[step + 1 : step + 2]
        clean = denoise(latents, sigma)
        latents = StreamLatents(
            euler_step(latents.video, clean.video, sigma, next_sigma),
            euler_step(latents.audio, clean.audio, sigma, next_sigma),
        )
        on_step(step + 1, clean.video)
        del clean  # the next evaluation needs the memory
    return latents


def gradient_estimating_euler(
    denoise: Denoise, latents: StreamLatents, sigmas: Tensor, _seed: int, on_step: OnStep
) -> StreamLatents:
    """Euler steps along slopes that are extrapolated from the step before.

    Fewer steps give the same quality. Source: arXiv 2306.04848, equation 13, with gamma = 2.
    """
    levels = sigmas.to(latents.video.device)
    before: StreamLatents | None = None
    for step in range(len(sigmas) - 2):
        sigma, next_sigma = levels[step : step + 1], levels[step + 1 : step + 2]
        clean = denoise(latents, sigma)
        slopes = StreamLatents(
            slope(latents.video, clean.video, sigma), slope(latents.audio, clean.audio, sigma)
        )
        if before is not None:
            clean = StreamLatents(
                _extrapolated(latents.video, slopes.video, before.video, sigma),
                _extrapolated(latents.audio, slopes.audio, before.audio, sigma),
            )
        before = slopes
        latents = StreamLatents(
            euler_step(latents.video, clean.video, sigma, next_sigma),
            euler_step(latents.audio, clean.audio, sigma, next_sigma),
        )
        on_step(step + 1, clean.video)
        del clean, slopes
    clean = denoise(latents, levels[-2:-1])
    on_step(len(sigmas) - 1, clean.video)
    return clean


def ancestral_euler(
    denoise: Denoise,
    latents: StreamLatents,
    sigmas: Tensor,
    seed: int,
    on_step: OnStep,
    eta: float = 1.0,
) -> StreamLatents:
    """Euler steps that go too far down, and up again by new noise.

    eta: how much of a step's way is made good by noise. The state keeps the variance of a rectified
    flow, whose clean part has weight 1 - sigma. Source: arXiv 2206.00364, algorithm 2, for the
    variance-exploding form.
    """
    noise = NoiseSource(seed + ANCESTRAL_SEED)
    levels = sigmas.to(latents.video.device)
    for step in range(len(sigmas) - 2):
        sigma, next_sigma = levels[step : step + 1], levels[step + 1 : step + 2]
        clean = denoise(latents, sigma, wide=True)
        noisy = (
            _ancestral_step(latent, x0, noise, sigma, next_sigma, eta)
            for latent, x0 in zip(latents, clean, strict=True)
        )
        kept = denoise.keep_clean(StreamLatents(*noisy))
        latents = StreamLatents(*(each.to(latents.video.dtype) for each in kept))
        on_step(step + 1, clean.video)
        del clean, kept
    clean = denoise(latents, levels[-2:-1])
    on_step(len(sigmas) - 1, clean.video)
    return clean


def slope(latent: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
    """(x - x0) / sigma, computed in float32 and rounded to the latent's dtype."""
    return ((latent.float() - x0.float()) / sigma).to(latent.dtype)


def euler_step(latent: Tensor, x0: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """Move a latent from noise level sigma to next_sigma along (x - x0) / sigma.

    In the official rounding: computed in float32, the slope rounded to the latent's dtype, then the
    result. sigmas: float32, [] or [1].
    """
    along = slope(latent, x0, sigma).float()
    return (latent.float() + along * (next_sigma - sigma)).to(latent.dtype)


def _extrapolated(latent: Tensor, now: Tensor, before: Tensor, sigma: Tensor) -> Tensor:
    """The estimate at the end of the extrapolated slope, which is rounded at every operation."""
    along = GAMMA * (now - before) + before
    return (latent.float() - along.float() * sigma).to(latent.dtype)


def _ancestral_step(
    latent: Tensor, x0: Tensor, noise: NoiseSource, sigma: Tensor, next_sigma: Tensor, eta: float
) -> Tensor:
    """In float32: down to a level below the next one, and up to it with noise."""
    down = next_sigma * (1 + (next_sigma / sigma - 1) * eta)
    share = down / sigma
    moved = share * latent.float() + (1 - share) * x0.float()
    scale = (1 - next_sigma) / (1 - down)
    up = (next_sigma**2 - down**2 * scale**2).clamp(min=0).sqrt()
    drawn = noise.draw(*latent.shape[1:]).to(latent.device).float()
    return scale * moved + up * drawn
