"""Latents as token sequences: where every token is, how noisy it may be, what it must stay."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .lengths import TIME

SPACE = 32

# Audio latents: mel frames of 10 ms, four to a token; 8 channels of 16 mel bins.
MEL_FRAMES_PER_TOKEN = 4
MEL_HOP = 160
MEL_SAMPLE_RATE = 16_000
AUDIO_CHANNELS = 8
AUDIO_BINS = 16


@dataclass(frozen=True, slots=True)
class VideoGrid:
    """The latent grid of a video: frames, height and width in latents; frame_rate in pixel frames.

    A patch spans [start, end) pixels on each axis. The first latent frame is a single pixel frame,
    every other one eight.
    """

    frames: int
    height: int
    width: int
    frame_rate: float

    @classmethod
    def of_pixels(cls, frames: int, height: int, width: int, frame_rate: float) -> "VideoGrid":
        return cls((frames - 1) // TIME + 1, height // SPACE, width // SPACE, frame_rate)

    @property
    def tokens(self) -> int:
        return self.frames * self.height * self.width

    @property
    def frame_tokens(self) -> int:
        return self.height * self.width

    def spans(self) -> Tensor:
        """[start, end) of every token: [3, tokens, 2] float32, in seconds, pixels, pixels."""
        axes = [
            torch.arange(n, dtype=torch.float32) for n in (self.frames, self.height, self.width)
        ]
        start = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        spans = torch.stack([start, start + 1], dim=-1)
        spans = spans * torch.tensor([TIME, SPACE, SPACE]).view(3, 1, 1)
        spans[0] = (spans[0] + 1 - TIME).clamp(min=0) / self.frame_rate
        return spans

    def reference_spans(self, downscale: int, temporal_scale: int) -> Tensor:
        """[start, end) of the tokens of a reference with this grid, as `spans`.

        frame_rate: of the video that it is for. A place stands for `downscale` times its height and
        width, and a frame after the first for `temporal_scale` frames.
        """
        rate = self.frame_rate / temporal_scale
        spans = replace(self, frame_rate=rate).spans()
        if temporal_scale > 1:
            spans[0] = (spans[0] - (temporal_scale - 1) / self.frame_rate).clamp(min=0)
        spans[1:] *= downscale
        return spans

    def frame_spans(self, frame: int) -> Tensor:
        """[start, end) of the tokens of an image at a pixel frame: [3, frame_tokens, 2]."""
        spans = self.spans()[:, : self.frame_tokens]
        spans[0] = torch.tensor([frame, frame + 1], dtype=torch.float32) / self.frame_rate
        return spans


def audio_spans(tokens: int) -> Tensor:
    """[start, end) of every audio token in seconds: [1, tokens, 2] float32, causal like video."""
    edges = torch.arange(tokens + 1, dtype=torch.float32) * MEL_FRAMES_PER_TOKEN
    seconds = (edges + 1 - MEL_FRAMES_PER_TOKEN).clamp(min=0) * MEL_HOP / MEL_SAMPLE_RATE
    return torch.stack([seconds[:-1], seconds[1:]], dim=-1)[None]


class StreamLatents(NamedTuple):
    """Latents of both streams as tokens, [1, tokens, channels] each."""

    video: Tensor
    audio: Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """One stream's tokens in a denoising run.

    latent: the noisy state, [1, tokens, channels].
    clean: what tokens with a mask below 1 are drawn to, like `latent`.
    mask: how much each token is denoised, from 0 (stays clean) to 1; [tokens] float32 on the CPU.
    spans: [axes, tokens, 2], see `VideoGrid.spans`.
    frozen: whether the stream is given, and no part of it is made: its noise level is 0 at every
        step.
    appended: how many at the end are not the stream's own.
    attention: how much tokens attend to each other, from 0 to 1, [tokens, tokens] bfloat16; None:
        all to all alike.
    pictures: stretches of tokens [start, stop) that stand for a single picture.
    """

    latent: Tensor
    clean: Tensor
    mask: Tensor
    spans: Tensor
    frozen: bool = False
    appended: int = 0
    attention: Tensor | None = None
    pictures: tuple[tuple[int, int], ...] = ()

    @property
    def own(self) -> int:
        """How many are the stream's own; they come first."""
        return self.latent.shape[1] - self.appended

    @property
    def positions(self) -> Tensor:
        """The middle of every token: [axes, tokens]."""
        return self.spans.mean(-1)

    def with_latent(self, latent: Tensor) -> "Tokens":
        return replace(self, latent=latent)

    def level_mask(self) -> Tensor:
        """The mask as it multiplies latents, [1, tokens, 1], on their device."""
        return self.mask.to(self.latent.device)[None, :, None]

    def attention_bias(self) -> Tensor | None:
        """What is added to the products of self-attention, [tokens, tokens] in the latent's dtype:
        the logarithm of how much tokens attend to each other, and its least number for 0.
        """
        if self.attention is None:
            return None
        weights, limits = self.attention.to(self.latent.dtype), torch.finfo(self.latent.dtype)
        bias = weights.clamp(min=limits.tiny).log_()
        return bias.masked_fill_(weights == 0, limits.min)


def plain_tokens(latent: Tensor, spans: Tensor) -> Tokens:
    """Tokens that are all denoised. latent: [1, tokens, channels]."""
    return Tokens(latent, torch.zeros_like(latent), torch.ones(latent.shape[1]), spans)


@dataclass(frozen=True, slots=True)
class KeptPart:
    """Which part of a given stream stays: what is outside of windows of seconds, or all of it.

    windows: from one second to another; without any, all of it stays.
    from_noise: where all of it stays, whether its state begins with noise nevertheless, and only
        moves to what is given, as in the official retake.
    """

    windows: tuple[tuple[float, float], ...] = ()
    from_noise: bool = False


def given_tokens(latent: Tensor, spans: Tensor, kept: KeptPart) -> Tokens:
    """Tokens of which a part stays; those that meet a window are made anew.

    latent: what is given, [1, tokens, channels].
    """
    inside = torch.zeros(latent.shape[1], dtype=torch.bool)
    for start, end in kept.windows:
        inside |= (spans[0, :, 1] > start) & (spans[0, :, 0] < end)
    return Tokens(latent, latent, inside.float(), spans, frozen=not kept.windows)


def replace_first_frame(tokens: Tokens, image: Tensor, strength: float) -> Tokens:
    """Tokens whose first frame is drawn to the image's: [1, frame tokens, channels]."""
    count = image.shape[1]
    clean, mask = tokens.clean.clone(), tokens.mask.clone()
    clean[:, :count] = image
    mask[:count] = 1 - strength
    return replace(tokens, clean=clean, mask=mask)


def append_tokens(
    tokens: Tokens, shown: Tensor, strength: float, spans: Tensor, weights: Tensor | None = None
) -> Tokens:
    """Tokens followed by those of an image or a video, [1, shown tokens, channels], at `spans`.

    Their mask is rounded to bfloat16, as the official pipeline does it.
    weights: how much each of them and the stream's own tokens attend to each other, [shown tokens]
        bfloat16. Once one has weights, what else is appended attends only to itself and to these.
    """
    count = shown.shape[1]
    return replace(
        tokens,
        latent=torch.cat([tokens.latent, torch.zeros_like(shown)], dim=1),
        clean=torch.cat([tokens.clean, shown], dim=1),
        mask=torch.cat([tokens.mask, torch.full((count,), _rounded(1 - strength))]),
        spans=torch.cat([tokens.spans, spans], dim=1),
        appended=tokens.appended + count,
        attention=_attention_with(tokens, count, weights),
    )


def _attention_with(tokens: Tokens, count: int, weights: Tensor | None) -> Tensor | None:
    """`Tokens.attention` with so many tokens more."""
    if weights is None and tokens.attention is None:
        return None
    before, device = tokens.latent.shape[1], tokens.latent.device
    made = torch.zeros(before + count, before + count, dtype=torch.bfloat16, device=device)
    made[:before, :before] = 1 if tokens.attention is None else tokens.attention
    made[before:, before:] = 1
    weighed = torch.ones(count, dtype=made.dtype) if weights is None else weights
    made[before:, : tokens.own] = weighed.to(device)[:, None]
    made[: tokens.own, before:] = weighed.to(device)
    return made


def add_noise(tokens: Tokens, noise: Tensor, scale: float) -> Tokens:
    """Mix noise in at a scale of 0 to 1, where the mask lets it. noise: like the latent.

    In float32, rounded once.
    """
    mixed = torch.lerp(tokens.latent.float(), noise.float(), scale)
    noised = torch.lerp(tokens.clean.float(), mixed, tokens.level_mask())
    return tokens.with_latent(noised.to(tokens.latent.dtype))


def video_tokens(latent: Tensor) -> Tensor:
    """[1, channels, frames, height, width] to [1, tokens, channels], a view.

    That it stays a view matters: on the CPU a linear rounds differently for strided tokens, and
    the official pipeline's are strided.
    """
    return latent.flatten(2).transpose(1, 2)


def video_latent(tokens: Tensor, grid: VideoGrid) -> Tensor:
    """The grid's own tokens, without appended ones, as [1, channels, frames, height, width]."""
    own: Tensor = tokens[:, : grid.tokens].transpose(1, 2)
    latent: Tensor = own.unflatten(2, (grid.frames, grid.height, grid.width))
    return latent.contiguous()


def audio_tokens(latent: Tensor) -> Tensor:
    """[1, 8, tokens, 16] to [1, tokens, 128]."""
    return latent.transpose(1, 2).flatten(2)


def audio_latent(tokens: Tensor) -> Tensor:
    """[1, tokens, 128] to [1, 8, tokens, 16]."""
    latent: Tensor = tokens.unflatten(2, (AUDIO_CHANNELS, AUDIO_BINS))
    return latent.transpose(1, 2).contiguous()


def _rounded(value: float) -> float:
    return torch.tensor(value, dtype=torch.bfloat16).item()
