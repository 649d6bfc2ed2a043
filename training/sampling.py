"""Euler sampling of a batch of prompts, as the engine samples one."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

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


class States(NamedTuple):
    """Latents of both streams, [B, tokens, 128]."""

    video: Tensor
    audio: Tensor


def sample(
    transformer: Transformer,
    where: Where,
    contexts: tuple[Tensor, Tensor],
    sigmas: Tensor,
    guided: Guided | None,
    generator: torch.Generator,
) -> States:
    """What is made of noise alone. contexts: see `steps`."""
    count, device = len(contexts[0]) // (1 if guided is None else 2), contexts[0].device
    noise = States(
        *(
            torch.randn(count, each[0][0].shape[0], 128, generator=generator).to(device)
            for each in (where.video, where.audio)
        )
    )
    return steps(transformer, where, contexts, sigmas, guided, noise)[-1]


@torch.no_grad()
def steps(
    transformer: Transformer,
    where: Where,
    contexts: tuple[Tensor, Tensor],
    sigmas: Tensor,
    guided: Guided | None,
    start: States,
) -> list[States]:
    """The states at all noise levels, of which `start` is the first.

    contexts: of B prompts, and then, if guided, of B negative prompts.
    """
    states = start
    found = [start]
    for sigma, following in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        clean = (
            unguided(transformer, where, contexts, states, sigma)
            if guided is None
            else guided_clean(transformer, where, contexts, states, sigma, guided)
        )
        states = States(
            *(
                x + (x - x0) / sigma * (following - sigma)
                for x, x0 in zip(states, clean, strict=True)
            )
        )
        found.append(states)
    return found


def unguided(
    transformer: Transformer,
    where: Where,
    contexts: tuple[Tensor, Tensor],
    states: States,
    sigma: float,
) -> States:
    """What the states are taken for without noise."""
    streams = _streams(states, contexts, where, sigma)
    made = velocities(transformer, *streams)
    return States(*(x - sigma * v for x, v in zip(states, made, strict=True)))


def guided_clean(
    transformer: Transformer,
    where: Where,
    contexts: tuple[Tensor, Tensor],
    states: States,
    sigma: float,
    guided: Guided,
) -> States:
    """The same with guidance: of every prompt four passes, conditioned, unconditioned, skipped and
    isolated.
    """
    count, device = len(states.video), states.video.device
    blocks = len(transformer.transformer_blocks)
    passes = torch.arange(4, device=device).repeat_interleave(count)
    skipped = torch.zeros(blocks, 4 * count, dtype=torch.bool, device=device)
    for block in DEFAULTS_2_3.stg_blocks(blocks):
        skipped[block] = passes == 2
    video, audio = (torch.cat([each, each[:count], each[:count]]) for each in contexts)
    four = States(*(x.repeat(4, 1, 1) for x in states))
    made = velocities(
        transformer, *_streams(four, (video, audio), where, sigma), passes != 3, skipped
    )

    def combined(x: Tensor, v: Tensor, guidance: Guidance) -> Tensor:
        each = (x - sigma * v).unflatten(0, (4, count))
        rows = [guide(Predictions(*each[:, row, None].unbind(0)), guidance) for row in range(count)]
        return torch.cat(rows)

    return States(
        combined(four.video, made[0], guided.video), combined(four.audio, made[1], guided.audio)
    )


def _streams(
    states: States, contexts: tuple[Tensor, Tensor], where: Where, sigma: float
) -> tuple[Stream, Stream]:
    video, audio = (
        Stream(
            x,
            torch.full((len(x), 2), sigma, device=x.device),
            torch.zeros(x.shape[1], device=x.device),
            text,
            *at,
        )
        for x, text, at in zip(states, contexts, (where.video, where.audio), strict=True)
    )
    return video, audio
