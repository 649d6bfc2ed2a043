"""Adaptive layer norm: from timesteps to the shifts, scales and gates of every block.

A *run* is a stretch of neighbouring tokens with one timestep. Text-to-video has one run,
image-to-video a few; so everything that depends on the timestep is computed once per distinct
timestep and applied run by run, never expanded to a row per token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 128


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Tokens [start, stop) have timestep number `timestep`."""

    start: int
    stop: int
    timestep: int


def sinusoids(timesteps: Tensor) -> Tensor:
    """[n] -> [n, 256]: cosines, then sines, of 128 frequencies (DDPM, arXiv 2006.11239)."""
    steps = torch.arange(FREQUENCIES, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * steps / FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimestepEmbedder(nn.Module):
    """Sinusoids through two linears with a SiLU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(2 * FREQUENCIES, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, timesteps: Tensor) -> Tensor:
        embedded = sinusoids(timesteps).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(embedded)))
        return out


class _Embedding(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedder(width)


class AdaLayerNormSingle(nn.Module):
    """`rows` modulation vectors for every timestep (PixArt-alpha, arXiv 2310.00426)."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.emb = _Embedding(width)
        self.linear = nn.Linear(width, rows * width)

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """[n] -> modulation [n, rows, width] and the embedding itself [n, width]."""
        embedded = self.emb.timestep_embedder(timesteps)
        return self.linear(F.silu(embedded)).unflatten(-1, (self.rows, -1)), embedded


@dataclass(frozen=True, slots=True)
class TokenTimesteps:
    """Which timestep each token of a stream has.

    runs: from the first token to the last. numbers: the same for every token, [tokens] int32, for
    kernels; None where all tokens have the first.
    """

    runs: tuple[TokenRun, ...]
    numbers: Tensor | None = None

    @classmethod
    def of(cls, runs: Sequence[TokenRun], device: torch.device) -> "TokenTimesteps":
        """From runs; nothing is sent to the device, so nothing waits for it."""
        if all(run.timestep == 0 for run in runs):
            return cls(tuple(runs))
        numbers = torch.empty(runs[-1].stop, dtype=torch.int32, device=device)
        for run in runs:
            numbers[run.start : run.stop].fill_(run.timestep)
        return cls(tuple(runs), numbers)

    @property
    def alike(self) -> "TokenTimesteps":
        """The same tokens as one run, for what does not depend on the token."""
        return TokenTimesteps((TokenRun(0, self.runs[-1].stop, 0),))


@dataclass(frozen=True, slots=True)
class Modulation:
    """x * (1 + scale) + shift, by each token's timestep. shift, scale: [timesteps, width]."""

    shift: Tensor
    scale: Tensor
    timesteps: TokenTimesteps


def modulate(x: Tensor, by: Modulation, in_place: bool = True) -> Tensor:
    """x * (1 + scale) + shift, in place unless x is needed again; x: [rows, tokens, width].

    The product is rounded before the sum, as it was in training: fusing the two would move bfloat16
    latents by several per cent.
    """
    out = x if in_place else torch.empty_like(x)
    factor = 1 + by.scale
    for run in by.timesteps.runs:
        part = slice(run.start, run.stop)
        torch.mul(x[:, part], factor[run.timestep], out=out[:, part]).add_(by.shift[run.timestep])
    return out


def add_gated(x: Tensor, update: Tensor, gate: Tensor, runs: Sequence[TokenRun]) -> None:
    """x += update * gate, in place, the product rounded first; `update` is overwritten.

    x, update: [rows, tokens, width]; gate: [timesteps, width].
    """
    for run in runs:
        update[:, run.start : run.stop].mul_(gate[run.timestep])
    x.add_(update)


def runs_of(timesteps: Sequence[float]) -> tuple[list[float], list[TokenRun]]:
    """Group neighbouring tokens with equal timesteps: the distinct timesteps, and the runs."""
    distinct = sorted(set(timesteps))
    runs: list[TokenRun] = []
    start = 0
    for token in range(1, len(timesteps) + 1):
        if token == len(timesteps) or timesteps[token] != timesteps[start]:
            runs.append(TokenRun(start, token, distinct.index(timesteps[start])))
            start = token
    return distinct, runs
