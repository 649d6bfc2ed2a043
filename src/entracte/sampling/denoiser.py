"""The denoiser: what a sampler calls, from noisy latents to an estimate of the clean ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.models.connectors import TextContext
from entracte.models.transformer import (
    Evaluate,
    Pass,
    RunBlocks,
    StreamInput,
    StreamRotary,
    Velocity,
    run_blocks,
    runs_of,
)
from entracte.recipes import Guidance

from .guidance import Predictions, guide
from .tokens import StreamLatents, Tokens


@dataclass(frozen=True, slots=True)
class GuidancePlan:
    """The guidance of both streams, and the passes that it needs, in the official order."""

    video: Guidance
    audio: Guidance

    def passes(self) -> dict[str, Pass]:
        """The passes by the field of `Predictions` that each computes."""
        streams = (self.video, self.audio)
        passes = {"conditioned": Pass()}
        if any(stream.cfg != 1 for stream in streams):
            passes["unconditioned"] = Pass(context=1)
        skipped = Pass(skip_video=_skipped(self.video), skip_audio=_skipped(self.audio))
        if skipped.first_skip is not None:
            passes["skipped"] = skipped
        if any(stream.modality != 1 for stream in streams):
            passes["isolated"] = Pass(isolated=True)
        return passes


def _skipped(guidance: Guidance) -> frozenset[int]:
    """The blocks in which a stream's self-attention is skipped, if it is guided by that."""
    return frozenset(guidance.stg_blocks or ()) if guidance.stg != 0 else frozenset()


UNGUIDED = GuidancePlan(Guidance(), Guidance())


class Denoiser:
    """Estimates the clean latents of both streams: all guidance passes, combined.

    One evaluation is one sweep over the transformer's blocks, however many passes it makes.
    video, audio: the tokens of a phase; what tokens with a mask below 1 are drawn to is part of
        every estimate. contexts: the prompt's, and the negative prompt's where guidance needs it.
    rows_at_once: how many passes share a batch. run: the loop over the blocks.
    """

    def __init__(
        self,
        transformer: Evaluate,
        video: Tokens,
        audio: Tokens,
        contexts: Sequence[TextContext],
        rotary: tuple[StreamRotary, StreamRotary],
        guidance: GuidancePlan,
        rows_at_once: int,
        run: RunBlocks = run_blocks,
    ) -> None:
        self._transformer = transformer
        self._run = run
        self._passes = guidance.passes()
        self._rows_at_once = rows_at_once
        # One tensor for all prompts, made once: every evaluation attends to it.
        video_contexts = torch.cat([context.video for context in contexts])
        audio_contexts = torch.cat([context.audio for context in contexts])
        self._video = _Stream(video, guidance.video, video_contexts, rotary[0])
        self._audio = _Stream(audio, guidance.audio, audio_contexts, rotary[1])

    def __call__(self, latents: StreamLatents, sigma: Tensor, wide: bool = False) -> StreamLatents:
        """The clean latents that `latents` at noise level `sigma` come from.

        latents: of any floating dtype, so that a sampler may keep its state in float64; they are
            rounded to the model's dtype, which the result has. sigma: [1], on their device, in
            float32 or float64. wide: clean tokens are put into the rounded estimate in float32,
            which the result then has.
        """
        latents = StreamLatents(*(each.to(self._video.dtype) for each in latents))
        guided = len(self._passes) > 1
        velocities = self._transformer(
            self._video.input(latents.video, sigma, contiguous=guided),
            self._audio.input(latents.audio, sigma, contiguous=guided),
            list(self._passes.values()),
            self._rows_at_once,
            self._run,
        )
        by_name: dict[str, Velocity] = dict(zip(self._passes, velocities, strict=True))
        return StreamLatents(
            self._video.clean(latents.video, {n: v.video for n, v in by_name.items()}, sigma, wide),
            self._audio.clean(latents.audio, {n: v.audio for n, v in by_name.items()}, sigma, wide),
        )

    def keep_clean(self, latents: StreamLatents) -> StreamLatents:
        """Latents, float32 or float64, with tokens drawn to what they are to be kept at."""
        return StreamLatents(
            self._video.keep_clean(latents.video), self._audio.keep_clean(latents.audio)
        )


class _Stream:
    """What of one stream stays the same in all evaluations."""

    def __init__(
        self, tokens: Tokens, guidance: Guidance, contexts: Tensor, rotary: StreamRotary
    ) -> None:
        self.dtype = tokens.latent.dtype
        self._clean = tokens.clean
        self._mask = tokens.level_mask()
        self._all_noisy = bool((tokens.mask == 1).all())
        distinct, self._runs = runs_of(tokens.mask.tolist())
        self._distinct = torch.tensor(distinct, device=tokens.latent.device)
        self._frozen = tokens.frozen
        self._pictures = tokens.pictures
        self._guidance = guidance
        self._contexts = contexts
        self._rotary = rotary
        self._bias = tokens.attention_bias()

    def input(self, latent: Tensor, sigma: Tensor, contiguous: bool) -> StreamInput:
        """What the transformer is given at a noise level [1].

        The official guided step batches its latents, which makes strided ones contiguous, and a
        linear rounds those once less; so `contiguous` is part of equality with it.
        """
        return StreamInput(
            latent=latent.contiguous() if contiguous else latent,
            timesteps=self._distinct * sigma,
            runs=self._runs,
            sigma=torch.zeros_like(sigma) if self._frozen else sigma,
            contexts=self._contexts,
            rotary=self._rotary,
            bias=self._bias,
            pictures=self._pictures,
        )

    def clean(
        self, latent: Tensor, velocities: dict[str, Tensor], sigma: Tensor, wide: bool
    ) -> Tensor:
        """The guided estimate from every pass's velocity, with the clean tokens kept."""
        level = self._mask * sigma
        predictions = {
            name: denoised(latent, velocity, level).float() for name, velocity in velocities.items()
        }
        x0 = guide(Predictions(**predictions), self._guidance).to(latent.dtype)
        return self.keep_clean(x0.float() if wide else x0)

    def keep_clean(self, latent: Tensor) -> Tensor:
        """The latent with tokens drawn to their clean ones, as far as the mask says."""
        return latent if self._all_noisy else keep_clean(latent, self._clean, self._mask)


def denoised(latent: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """x0 = x - v * level, computed in float32 and rounded to the latent's dtype.

    level: each token's noise level, mask * sigma; broadcasts over [1, tokens, channels].
    """
    return (latent.float() - velocity.float() * level).to(latent.dtype)


def keep_clean(x0: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """x0 * mask + clean * (1 - mask), in float32 or x0's wider dtype, rounded to x0's dtype.

    mask: [1, tokens, 1] float32.
    """
    return (x0 * mask + clean.float() * (1 - mask)).to(x0.dtype)
