"""What a video is conditioned on: prompts as contexts, images as latents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entracte.binding import BoundRequest
from entracte.errors import MediaError
from entracte.media.images import fit, recompress
from entracte.media.read_image import read_image
from entracte.media.read_sound import Sound, read_sound
from entracte.models.audio_vae import AudioVae
from entracte.models.calls import Call, call_plainly
from entracte.models.connectors import Connectors, TextContext
from entracte.models.gemma import TextEncoder
from entracte.models.mel import log_mel
from entracte.models.video_vae import SPATIAL_SCALE, VideoVae
from entracte.request import ImageCondition
from entracte.sampling.tokens import MEL_FRAMES_PER_TOKEN, VideoGrid


def encode_text(
    encoder: TextEncoder, tokens: Tensor, device: torch.device, call: Call = call_plainly
) -> Tensor:
    """Encode token ids [tokens] as the states of all layers, [tokens, hidden width, layers + 1]."""
    states: Tensor = encoder(tokens.to(device), call)
    return states


def connect_text(connectors: Connectors, states: Tensor) -> TextContext:
    """Turn states [tokens, hidden width, layers + 1] into a context for each stream."""
    context: TextContext = connectors(states)
    return context


# Seconds of sound beyond the video that are read with it.
MORE_SOUND = 1.0

# Half a window of the spectrogram, without which it has nothing to begin with.
LEAST_SECONDS = 0.04


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A conditioning image, read and re-compressed: pixels [height, width, 3] uint8."""

    pixels: np.ndarray
    frame: int
    strength: float


@dataclass(frozen=True, slots=True)
class FittedImage:
    """A conditioning image at a phase's size, on the device: what `VideoVae.encode` takes."""

    pixels: Tensor
    frame: int
    strength: float


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A conditioning image as latents [1, channels, 1, height, width], normalised."""

    latent: Tensor
    frame: int
    strength: float


@dataclass(frozen=True, slots=True)
class PreparedSound:
    """A given sound, read. mel: [1, 2, frames, 64] float32, of more than what the video has.

    heard: what the video has.
    """

    heard: Sound
    mel: Tensor


def prepare_sound(request: BoundRequest) -> PreparedSound | None:
    """Read the sound of a bound request, where one is given.

    Raises MediaError for one that cannot be used, or is shorter than the video.
    """
    if request.sound is None:
        return None
    seconds = float(request.num_frames / request.frame_rate)
    path, start = request.sound.path, request.sound.start
    # The encoder does not look ahead, but the spectrogram does, by a window.
    found = read_sound(path, start, seconds + MORE_SOUND)
    has = found.samples.shape[1] / found.rate
    mel = log_mel(found.samples, found.rate) if has > LEAST_SECONDS else None
    if mel is None or -(-mel.shape[2] // MEL_FRAMES_PER_TOKEN) < request.audio_tokens:
        raise MediaError(
            f"sound {path} has {has:.2f} s after {start:g} s; the video has {seconds:.2f} s"
        )
    return PreparedSound(found.first(seconds), mel)


def encode_sound(vae: AudioVae, mel: Tensor, tokens: int) -> Tensor:
    """Log-mel [1, 2, frames, 64] to the first normalised latents, [1, 8, tokens, 16]."""
    return vae.encode(mel)[:, :, :tokens].contiguous()


def prepare_images(images: Sequence[ImageCondition]) -> tuple[PreparedImage, ...]:
    """Read all images of a bound request. Raises MediaError for one that cannot be used."""
    return tuple(map(_prepare_image, images))


def _prepare_image(image: ImageCondition) -> PreparedImage:
    assert image.crf is not None  # binding fills it in
    pixels = recompress(read_image(image.path), image.crf)
    return PreparedImage(pixels, image.frame, image.strength)


def fit_images(
    images: Sequence[PreparedImage],
    grid: VideoGrid,
    device: torch.device,
    dtype: torch.dtype,
) -> list[FittedImage]:
    """Fit every image to the grid's size, and send it to the device."""
    height, width = grid.height * SPATIAL_SCALE, grid.width * SPATIAL_SCALE
    return [
        FittedImage(fit(image.pixels, height, width).to(device, dtype), image.frame, image.strength)
        for image in images
    ]


def encode_images(vae: VideoVae, images: Sequence[FittedImage]) -> list[EncodedImage]:
    """Encode every image."""
    return [EncodedImage(vae.encode(each.pixels), each.frame, each.strength) for each in images]
