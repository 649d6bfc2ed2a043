"""Denoising: the loop over noise levels, guided or not. Refinement is the same at full size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.models.connectors import TextContext
from entracte.models.transformer import (
    Pass,
    StreamInput,
    StreamRotary,
    Transformer,
    Velocity,
    runs_of,
)
from entracte.sampling.euler import denoised, euler_step, keep_clean
from entracte.sampling.guidance import Guidance, Predictions, guide
from entracte.sampling.tokens import Tokens

# Called after every step with its number, from 1, and what it took the clean video tokens to be,
# [1, tokens, channels].
OnStep = Callable[[int, Tensor], None]


@dataclass(frozen=True, slots=True)
class GuidancePlan:
    """The guidance of both streams, and the passes that it needs, in the official order."""

    video: Guidance
    audio: Guidance

    def passes(self) -> dict[str, Pass]:
        """The passes by the name of the prediction that each makes."""
        streams = (self.video, self.audio)
        passes = {"conditioned": Pass()}
        if any(stream.cfg != 1 for stream in streams):
            passes["unconditioned"] = Pass(context=1)
        skipped = Pass(
            skip_video=frozenset(self.video.stg_blocks or ()),
            skip_audio=frozenset(self.audio.stg_blocks or ()),
        )
        if any(stream.stg != 0 for stream in streams) and skipped.first_skip is not None:
            passes["skipped"] = skipped
        if any(stream.modality != 1 for stream in streams):
            passes["isolated"] = Pass(isolated=True)
        return passes


UNGUIDED = GuidancePlan(Guidance(), Guidance())


def denoise(
    transformer: Transformer,
    video: Tokens,
    audio: Tokens,
    contexts: Sequence[TextContext],
    rotary: tuple[StreamRotary, StreamRotary],
    sigmas: Tensor,
    guidance: GuidancePlan,
    rows_at_once: int,
    on_step: OnStep,
) -> tuple[Tensor, Tensor]:
    """Run all steps; returns the video and audio tokens, [1, tokens, channels] each.

    contexts: the prompt's, and the negative prompt's where guidance asks for it.
    sigmas: [steps + 1] float32, on the CPU. rows_at_once: guidance passes computed together.
    """
    passes = guidance.passes()
    video_contexts = torch.cat([context.video for context in contexts])
    audio_contexts = torch.cat([context.audio for context in contexts])
    levels = sigmas.to(video.latent.device)
    streams = [
        _Stream(video, guidance.video, video_contexts, rotary[0]),
        _Stream(audio, guidance.audio, audio_contexts, rotary[1]),
    ]
    for step in range(len(sigmas) - 1):
        sigma, next_sigma = levels[step : step + 1], levels[step + 1 : step + 2]
        inputs = [stream.input(sigma, contiguous=len(passes) > 1) for stream in streams]
        velocities = transformer(*inputs, passes=list(passes.values()), rows_at_once=rows_at_once)
        by_name = dict(zip(passes, velocities, strict=True))
        clean = [
            stream.step({name: pick(v) for name, v in by_name.items()}, sigma, next_sigma)
            for stream, pick in zip(streams, (_video, _audio), strict=True)
        ]
        on_step(step + 1, clean[0])
        del clean  # its memory is the next step's
    return streams[0].latent, streams[1].latent


class _Stream:
    """One stream's state in the loop."""

    def __init__(
        self, tokens: Tokens, guidance: Guidance, contexts: Tensor, rotary: StreamRotary
    ) -> None:
        self.latent = tokens.latent
        self._clean = tokens.clean
        self._mask = tokens.level_mask()
        self._all_noisy = bool((tokens.mask == 1).all())
        distinct, self._runs = runs_of(tokens.mask.tolist())
        self._distinct = torch.tensor(distinct, device=tokens.latent.device)
        self._guidance = guidance
        self._contexts = contexts
        self._rotary = rotary

    def input(self, sigma: Tensor, contiguous: bool) -> StreamInput:
        """What the transformer is given at a noise level [1].

        The official guided step batches its latents, which makes strided ones contiguous, and a
        linear rounds those once less; so `contiguous` is part of equality with it.
        """
        return StreamInput(
            latent=self.latent.contiguous() if contiguous else self.latent,
            timesteps=self._distinct * sigma,
            runs=self._runs,
            sigma=sigma,
            contexts=self._contexts,
            rotary=self._rotary,
        )

    def step(self, velocities: dict[str, Tensor], sigma: Tensor, next_sigma: Tensor) -> Tensor:
        """Move on by one step, given every pass's velocity; returns what is clean by them."""
        level = self._mask * sigma
        predictions = {
            name: denoised(self.latent, velocity, level).float()
            for name, velocity in velocities.items()
        }
        x0 = guide(Predictions(**predictions), self._guidance).to(self.latent.dtype)
        if not self._all_noisy:
            x0 = keep_clean(x0, self._clean, self._mask)
        self.latent = euler_step(self.latent, x0, sigma, next_sigma)
        return x0


def _video(velocity: Velocity) -> Tensor:
    return velocity.video


def _audio(velocity: Velocity) -> Tensor:
    return velocity.audio
