"""Noise levels (sigmas) of a denoising run, from high to 0."""

import math

import torch
from torch import Tensor

# What most pipelines take the shift for, whatever the size of the video.
USUAL_TOKENS = 4096

# The shift is a line through these numbers of tokens.
TOKENS, SHIFTS = (1024, USUAL_TOKENS), (0.95, 2.05)
TERMINAL = 0.1


def shifted_sigmas(steps: int, tokens: int = USUAL_TOKENS) -> Tensor:
    """`steps` + 1 noise levels, float32: 1 first, 0.1 before last, 0 last.

    Evenly spaced levels are shifted towards noise by s' = e^s / (e^s + 1/sigma - 1) (flow matching
    timestep shift, arXiv 2403.03206), where s grows with the number of video tokens, then
    stretched so that the last level that is not zero is 0.1. Raises ValueError for so many tokens
    that all levels but the last are the same.
    """
    sigmas = torch.linspace(1.0, 0.0, steps + 1)
    slope = (SHIFTS[1] - SHIFTS[0]) / (TOKENS[1] - TOKENS[0])
    power = math.exp(slope * tokens + (SHIFTS[0] - slope * TOKENS[0]))
    sigmas = torch.where(sigmas != 0, power / (power + (1 / sigmas - 1)), 0.0)
    distance = 1 - sigmas[:-1]
    if steps > 1 and distance[-1] == 0:
        raise ValueError(f"{tokens:,} tokens are too many for a schedule that is shifted by them")
    sigmas[:-1] = 1 - distance / (distance[-1] / (1 - TERMINAL)) if steps > 1 else sigmas[:-1]
    return sigmas
