"""Noise that a seed fixes on every machine."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """Gives a request's noise piece by piece."""

    def draw(self, tokens: int, channels: int) -> Tensor:
        """The next standard normal noise, [1, tokens, channels]."""


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


class WhitenedNoise:
    """Float64 noise whose mean is exactly 0 and whose deviation is 1, for stochastic samplers.

    On the CPU, like all noise. A GPU copies it from pinned memory, so that the host does not wait.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._device = device

    def draw(self, tokens: int, channels: int) -> Tensor:
        """The next noise, [1, tokens, channels] float64 on the device."""
        if self._device.type == "meta":
            return torch.empty(1, tokens, channels, dtype=torch.float64, device=self._device)
        noise = torch.randn(1, tokens, channels, generator=self._generator, dtype=torch.float64)
        noise = (noise - noise.mean()) / noise.std()
        # Over the tokens and channels: at one video the same numbers again, and other roundings.
        noise = (noise - noise.mean((-2, -1), keepdim=True)) / noise.std((-2, -1), keepdim=True)
        if self._device.type == "cuda":
            noise = noise.pin_memory()
        return noise.to(self._device, non_blocking=True)


class DrawnNoise:
    """Noise drawn beforehand, and already on a device.

    What is sent to a device while weights are on their way there has to wait for them.
    sizes: tokens and channels of every draw that will be made, in order.
    """

    def __init__(
        self, source: NoiseSource, sizes: Iterable[tuple[int, int]], device: torch.device
    ) -> None:
        self._left = deque(source.draw(*size).to(device) for size in sizes)

    def draw(self, tokens: int, channels: int) -> Tensor:
        """The next noise, [1, tokens, channels] bfloat16; raises ValueError for another size."""
        noise = self._left.popleft()
        if noise.shape[1:] != (tokens, channels):
            raise ValueError(f"{[tokens, channels]} numbers are wanted, {list(noise.shape)} drawn")
        return noise
