"""Noise levels (sigmas) of a denoising run, from high to 0."""

import math

import torch
from torch import Tensor

SHIFT = 2.05
TERMINAL = 0.1


def shifted_sigmas(steps: int) -> Tensor:
    """`steps` + 1 noise levels, float32: 1 first, 0.1 before last, 0 last.

    Evenly spaced levels are shifted towards noise by s' = e^s / (e^s + 1/sigma - 1) (flow matching
    timestep shift, arXiv 2403.03206), with s the same at every resolution, then stretched so that
    the last level that is not zero is 0.1.
    """
    sigmas = torch.linspace(1.0, 0.0, steps + 1)
    power = math.exp(SHIFT)
    sigmas = torch.where(sigmas != 0, power / (power + (1 / sigmas - 1)), 0.0)
    distance = 1 - sigmas[:-1]
    sigmas[:-1] = 1 - distance / (distance[-1] / (1 - TERMINAL)) if steps > 1 else sigmas[:-1]
    return sigmas
