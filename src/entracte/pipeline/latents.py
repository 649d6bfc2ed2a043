"""Prepares, upsamples and decodes latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entracte.errors import NotFinite
from entracte.models.audio_vae import AudioVae
from entracte.models.tiling import Tiling, decode_tiled
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder
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
from entracte.stages import DECODE_VIDEO, Stage

from .conditions import EncodedImage


@dataclass(frozen=True, slots=True)
class Latents:
    """What a phase produces.

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

    The image at frame 0 replaces the first frame's tokens; others are appended. Noise is drawn
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

    appended: the number of images after the first frame.
    """
    video = grid.tokens + appended * grid.frame_tokens
    return [(video, channels), (audio_count, AUDIO_CHANNELS * AUDIO_BINS)]


def _noised(tokens: Tokens, noise: Noise, scale: float) -> Tokens:
    _, count, channels = tokens.latent.shape
    return add_noise(tokens, noise.draw(count, channels).to(tokens.latent), scale)


def upsample(upsampler: Upsampler, vae: VideoVae, latent: Tensor) -> Tensor:
    """Normalised latents [1, channels, frames, h, w] to [1, channels, frames, 2h, 2w].

    The upsampler works on latents as the VAE makes them, before its statistics normalise them.
    """
    return vae.normalise(upsampler(vae.denormalise(latent)))


def decode_audio(vae: AudioVae, vocoder: Vocoder, latent: Tensor) -> Tensor:
    """Normalised latents [1, 8, tokens, 16] to [channels, samples] float32 in -1..1, on the CPU."""
    waveform: Tensor = vocoder(vae.decode(latent).to(torch.float32))
    return waveform[0].cpu()


def decode_video(
    vae: VideoVae,
    latent: Tensor,
    tiling: Tiling,
    height: int | None = None,
    width: int | None = None,
) -> Iterator[Tensor]:
    """Normalised latents [1, channels, frames, h, w] to chunks [frames, height, width, 3] uint8.

    Chunks come in order, on the CPU, each as soon as no later tile can change it.
    height, width: to crop to, at the centre; None: uncropped. Raises NotFinite.
    """
    for pixels in decode_tiled(vae.decode, latent, tiling):
        pixels = _centre(_centre(pixels, -2, height), -1, width)
        levels = pixels.float().add_(1).mul_(127.5)
        require_finite(DECODE_VIDEO, levels)
        levels = levels.clamp_(0, 255).round_()
        yield levels[0].permute(1, 2, 3, 0).to(torch.uint8).cpu().contiguous()


def _centre(pixels: Tensor, dim: int, length: int | None) -> Tensor:
    if length is None:
        return pixels
    return pixels.narrow(dim, (pixels.shape[dim] - length) // 2, length)


def require_finite(stage: Stage, *made: Tensor) -> None:
    """Raise NotFinite, naming the stage, unless all numbers are finite. Waits for the device once.

    A tensor's minimum and maximum are finite only if all its numbers are: one NaN makes both NaN.
    Unlike a mask, or torch.aminmax of a strided tensor, they need no memory, and unlike a sum they
    do not overflow.
    """
    extremes = torch.stack(
        [extreme for tensor in made for extreme in (tensor.amin(), tensor.amax())]
    )
    if extremes.isfinite().logical_not().any().item():
        raise NotFinite(f"{stage.name} made numbers that are not finite, so there is no video")
