"""Samplers: each is one loop over noise levels, calling a denoiser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from .tokens import StreamLatents

# From latents at a noise level, [1] on their device, to an estimate of the clean ones; `Denoiser`.
Denoise = Callable[[StreamLatents, Tensor], StreamLatents]

# Called after every step with its number, from 1, and the video's clean estimate,
# [1, tokens, channels].
OnStep = Callable[[int, Tensor], None]

# Takes the denoiser, the noisy latents, the noise levels ([steps + 1] float32, on the CPU), the
# request's seed, from which a sampler that adds noise makes its own source
# (`entracte.sampling.noise`), and what to call after every step. Returns the final latents.
SamplingLoop = Callable[[Denoise, StreamLatents, Tensor, int, OnStep], StreamLatents]


@dataclass(frozen=True, slots=True)
class Sampler:
    """A loop, and how often it evaluates the denoiser.

    evaluations_per_step: calls of the denoiser in a step. extra_evaluations: calls beside them,
        however many steps there are.

    The device manager, the planner and the progress rely on these numbers: an evaluation is one
    sweep over the transformer's blocks.
    """

    loop: SamplingLoop
    evaluations_per_step: int = 1
    extra_evaluations: int = 0

    def evaluations(self, steps: int) -> int:
        """How often the denoiser is called in that many steps."""
        return steps * self.evaluations_per_step + self.extra_evaluations


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


def euler_step(latent: Tensor, x0: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """Move a latent from noise level sigma to next_sigma along (x - x0) / sigma.

    In the official rounding: computed in float32, the slope rounded to the latent's dtype, then the
    result. sigmas: float32, [] or [1].
    """
    slope = ((latent.float() - x0.float()) / sigma).to(latent.dtype)
    return (latent.float() + slope.float() * (next_sigma - sigma)).to(latent.dtype)


# By the names that recipes give them.
SAMPLERS: Mapping[str, Sampler] = MappingProxyType({"euler": Sampler(euler)})
