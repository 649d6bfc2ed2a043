"""The token sequences of a phase: noise, or an earlier phase's result, with images in place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.sampling.noise import Noise
from entracte.sampling.tokens import (
    AUDIO_BINS,
    AUDIO_CHANNELS,
    Tokens,
    VideoGrid,
    add_noise,
    append_image,
    audio_spans,
    audio_tokens,
    plain_tokens,
    replace_first_frame,
    video_tokens,
)

from .encode_images import EncodedImage


@dataclass(frozen=True, slots=True)
class Latents:
    """What a phase makes.

    video: [1, channels, frames, height, width] normalised; audio: [1, 8, tokens, 16] normalised.
    """

    video: Tensor
    audio: Tensor


def empty_latents(
    grid: VideoGrid, channels: int, audio_count: int, device: torch.device, dtype: torch.dtype
) -> Latents:
    """All zeros, for a phase that starts from noise alone."""
    return Latents(
        torch.zeros(1, channels, grid.frames, grid.height, grid.width, device=device, dtype=dtype),
        torch.zeros(1, AUDIO_CHANNELS, audio_count, AUDIO_BINS, device=device, dtype=dtype),
    )


def prepare_latents(
    start: Latents,
    grid: VideoGrid,
    images: Sequence[EncodedImage],
    noise: Noise,
    noise_scale: float,
) -> tuple[Tokens, Tokens]:
    """Video and audio tokens of a phase, noised.

    The image at frame 0 replaces the first frame's tokens, any other is appended. Noise is drawn
    for the video, appended tokens included, and then for the audio.
    """
    video = plain_tokens(video_tokens(start.video), grid.spans())
    for image in images:
        tokens = video_tokens(image.latent)
        if image.frame == 0:
            video = replace_first_frame(video, tokens, image.strength)
        else:
            video = append_image(video, tokens, image.strength, grid.frame_spans(image.frame))
    audio_start = audio_tokens(start.audio)
    audio = plain_tokens(audio_start, audio_spans(audio_start.shape[1]))
    return _noised(video, noise, noise_scale), _noised(audio, noise, noise_scale)


def noise_sizes(
    grid: VideoGrid, channels: int, appended: int, audio_count: int
) -> list[tuple[int, int]]:
    """Tokens and channels of the noise that `prepare_latents` draws.

    appended: how many images stand behind the first frame.
    """
    video = grid.tokens + appended * grid.frame_tokens
    return [(video, channels), (audio_count, AUDIO_CHANNELS * AUDIO_BINS)]


def _noised(tokens: Tokens, noise: Noise, scale: float) -> Tokens:
    _, count, channels = tokens.latent.shape
    return add_noise(tokens, noise.draw(count, channels).to(tokens.latent), scale)
