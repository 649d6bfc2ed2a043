"""Noise that a seed fixes on every machine."""

import torch
from torch import Tensor


class NoiseSource:
    """Draws a request's noise, in order, from one CPU generator.

    CUDA's noise depends on the chip, and bfloat16 noise on the version of torch. So all noise is
    drawn on the CPU in float32 and rounded to bfloat16, whatever the model's dtype: that is the
    official noise, and a seed means the same everywhere.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, tokens: int, channels: int) -> Tensor:
        """Standard normal noise, [1, tokens, channels] bfloat16 on the CPU."""
        return torch.randn(1, tokens, channels, generator=self._generator).to(torch.bfloat16)
