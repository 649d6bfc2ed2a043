"""The second-order exponential sampler with noise added at every evaluation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .loop import Denoise, OnStep
from .noise import WhitenedNoise
from .tokens import StreamLatents

# The level of the last evaluation, below all that a model was trained at.
LAST_LEVEL = 0.0011

# Of the noise after a step, and after its first half; the same for every request.
STEP_SEED = 2**64 - 1
MIDDLE_SEED = 9999

# The share of a level that is replaced by new noise.
ETA = 0.5

# Short steps above a level correct where they started from, so often.
SHORT, LOWEST_CORRECTED, CORRECTIONS = 0.5, 0.03, 100


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Of a step of length h = ln(sigma / next sigma): exponential Runge-Kutta of second order.

    first: of the slope at the start, on the way to the middle. start, middle: of both slopes, over
    the whole step. Source: Hochbruck and Ostermann, Explicit exponential Runge-Kutta methods for
    semilinear parabolic problems (2005), tableau 5.3, with c2 = 1/2.
    """

    h: float
    first: float
    start: float
    middle: float

    @classmethod
    def of(cls, sigma: float, next_sigma: float) -> "Coefficients":
        h = -math.log(next_sigma / sigma)
        middle = _phi2(-h) / 0.5
        return cls(h, h * (0.5 * _phi1(-h * 0.5)), _phi1(-h) - middle, middle)


def res_2s(
    denoise: Denoise, latents: StreamLatents, sigmas: Tensor, _seed: int, on_step: OnStep
) -> StreamLatents:
    """Steps of two evaluations, at the start and in the middle, and an evaluation at the end.

    The state is float64. The noise does not depend on the request's seed, as in the official
    sampler. Source of the name and the method: arXiv 2308.02157, second order, single step.
    """
    dtype, device = latents.video.dtype, latents.video.device
    levels = torch.cat([sigmas[:-1], torch.tensor([LAST_LEVEL])])
    on_device = levels.to(device)
    at_step, at_middle = WhitenedNoise(STEP_SEED, device), WhitenedNoise(MIDDLE_SEED, device)
    steps = len(levels) - 1
    for step in range(steps):
        sigma, next_sigma = levels[step].double(), levels[step + 1].double()
        by = Coefficients.of(sigma.item(), next_sigma.item())
        starts = StreamLatents(*(each.double() for each in latents))
        clean = denoise(latents, on_device[step : step + 1])
        slopes = StreamLatents(*(x0 - x for x0, x in zip(clean, starts, strict=True)))

        level = (sigma * next_sigma).sqrt()
        middle = StreamLatents(*(x + by.first * e for x, e in zip(starts, slopes, strict=True)))
        middle = _with_noise(denoise, starts, middle, sigma, level, at_middle)
        if by.h < SHORT and sigma > LOWEST_CORRECTED:
            starts = StreamLatents(
                *(
                    _corrected_start(m, x0, e, by.first)
                    for m, x0, e in zip(middle, clean, slopes, strict=True)
                )
            )
            slopes = StreamLatents(*(x0 - x for x0, x in zip(clean, starts, strict=True)))
        del clean
        clean = denoise(middle, level.to(device).view(1))
        del middle

        end = StreamLatents(
            *(
                x + by.h * (by.start * e + by.middle * (x0 - x))
                for x, e, x0 in zip(starts, slopes, clean, strict=True)
            )
        )
        # In the levels' own type, unlike the middle, which is not one of them.
        end = _with_noise(denoise, starts, end, levels[step], levels[step + 1], at_step)
        latents = StreamLatents(*(each.to(dtype) for each in end))
        if step < steps - 1:
            on_step(step + 1, clean.video)
        del clean, starts, slopes, end  # the next evaluation needs the memory
    clean = denoise(latents, on_device[-1:])
    on_step(steps, clean.video)
    return clean


def _corrected_start(middle: Tensor, x0: Tensor, slope: Tensor, first: float) -> Tensor:
    """Where a step that leads to the noised middle would have started from, by iteration."""
    start = middle
    for _ in range(CORRECTIONS):
        start = middle - first * slope
        slope = x0 - start
    return start


def _with_noise(
    denoise: Denoise,
    starts: StreamLatents,
    ends: StreamLatents,
    sigma: Tensor,
    next_sigma: Tensor,
    noise: WhitenedNoise,
) -> StreamLatents:
    """Latents that went from one level to another, with noise of that level in part renewed."""
    noised = (
        _renew_noise(x, y, sigma, next_sigma, noise.draw(*x.shape[1:]))
        for x, y in zip(starts, ends, strict=True)
    )
    return denoise.keep_clean(StreamLatents(*noised))


def _renew_noise(
    start: Tensor, end: Tensor, sigma: Tensor, next_sigma: Tensor, noise: Tensor
) -> Tensor:
    """The end of a step with a share of its noise drawn anew. sigmas: [], on the CPU.

    The clean part and the noise that start and end lie on a line with are taken apart, and put
    together so that signal and noise have the weights of a rectified flow.
    """
    up = next_sigma * ETA
    left = (next_sigma**2 - up**2).sqrt()
    signal = (1 - next_sigma) + left
    along = (start - end) / (sigma - next_sigma)
    return signal * ((start - sigma * along) + left / signal * along) + up * noise


def _phi1(z: float) -> float:
    return (math.exp(z) - 1) / z


def _phi2(z: float) -> float:
    return (math.exp(z) - 1 - z) / z**2
