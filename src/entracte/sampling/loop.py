"""What a sampler is: a loop over noise levels, calling a denoiser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .tokens import StreamLatents


class Denoise(Protocol):
    """What a sampler calls; `Denoiser`, or a stand-in for it."""

    def __call__(self, latents: StreamLatents, sigma: Tensor, wide: bool = False) -> StreamLatents:
        """The clean latents that `latents` at noise level `sigma`, [1] on their device, come from.

        Tokens that are to be kept clean are so in the result, which has the model's dtype. wide:
        that of tokens kept in part is not rounded to it, but left in float32.
        """

    def keep_clean(self, latents: StreamLatents) -> StreamLatents:
        """`latents`, float32 or float64, with tokens drawn to what they are to be kept at."""


# Called after every step with its number, from 1, and the video's clean estimate,
# [1, tokens, channels].
OnStep = Callable[[int, Tensor], None]

# Takes the denoiser, the noisy latents, the noise levels ([steps + 1] float32, on the CPU, the last
# one 0), the request's seed, from which a sampler that adds noise makes its own source
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
