"""Guided Euler sampling of a batch of prompts, as the engine samples one."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from entracte.models.transformer import Transformer
from entracte.recipes import Guidance
from entracte.sampling.guidance import Predictions, guide
from entracte.versions import DEFAULTS_2_3

from .flow import Angles, Stream, velocities


@dataclass(frozen=True, slots=True)
class Guided:
    """How strongly each stream is guided."""

    video: Guidance
    audio: Guidance


class Where(Protocol):
    """Angles of both streams' tokens; `training.transformer.Place` is one."""

    @property
    def video(self) -> tuple[Angles, Angles]: ...
    @property
    def audio(self) -> tuple[Angles, Angles]: ...


@torch.no_grad()
def sample(
    transformer: Transformer,
    where: Where,
    contexts: tuple[Tensor, Tensor],
    sigmas: Tensor,
    guided: Guided,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Latents of both streams, [B, tokens, 128], from noise alone.

    contexts: of B prompts, then of B negative prompts.
    """
    count, device = len(contexts[0]) // 2, contexts[0].device
    states = [
        torch.randn(count, each[0][0].shape[0], 128, generator=generator).to(device)
        for each in (where.video, where.audio)
    ]
    blocks = len(transformer.transformer_blocks)
    # Of every prompt: conditioned, unconditioned, skipped, isolated.
    passes = torch.arange(4, device=device).repeat_interleave(count)
    joined = passes != 3
    skipped = torch.zeros(blocks, 4 * count, dtype=torch.bool, device=device)
    for block in DEFAULTS_2_3.stg_blocks(blocks):
        skipped[block] = passes == 2
    told = [torch.cat([each, each[:count], each[:count]]) for each in contexts]
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        levels = torch.full((4 * count, 2), sigma, device=device)
        streams = [
            Stream(x.repeat(4, 1, 1), levels, torch.zeros(x.shape[1], device=device), text, *at)
            for x, text, at in zip(states, told, (where.video, where.audio), strict=True)
        ]
        made = velocities(transformer, streams[0], streams[1], joined, skipped)
        for index, guidance in enumerate((guided.video, guided.audio)):
            x = states[index]
            clean = x.repeat(4, 1, 1) - sigma * made[index]
            each = clean.unflatten(0, (4, count))
            x0 = torch.stack(
                [
                    guide(Predictions(*each[:, row, None].unbind(0)), guidance)[0]
                    for row in range(count)
                ]
            )
            states[index] = x + (x - x0) / sigma * (following - sigma)
    return states[0], states[1]
