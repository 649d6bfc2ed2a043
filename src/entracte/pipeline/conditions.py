"""What a video is conditioned on: prompts as contexts, images as latents."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from entracte.conditions import ImageCondition
from entracte.media.images import fit, recompress
from entracte.media.read_image import decode_image, read_image
from entracte.models.calls import Call, call_plainly
from entracte.models.connectors import Connectors, TextContext
from entracte.models.language_model import LanguageModel
from entracte.models.video_vae import SPATIAL_SCALE, VideoVae
from entracte.sampling.tokens import VideoGrid


def encode_text(
    encoder: LanguageModel, tokens: Tensor, device: torch.device, call: Call = call_plainly
) -> Tensor:
    """Encode token ids [tokens] as the states of all layers, [tokens, hidden width, layers + 1]."""
    states: Tensor = encoder(tokens.to(device), call)
    return states


def connect_text(connectors: Connectors, states: Tensor) -> TextContext:
    """Turn states [tokens, hidden width, layers + 1] into a context for each stream."""
    context: TextContext = connectors(states)
    return context


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


def prepare_images(images: Sequence[ImageCondition]) -> tuple[PreparedImage, ...]:
    """Read all images of a bound request. Raises MediaError for one that cannot be used."""
    return tuple(map(_prepare_image, images))


def _prepare_image(image: ImageCondition) -> PreparedImage:
    assert image.crf is not None  # binding fills it in
    if image.data is None:
        read = read_image(image.path)
    else:
        read = decode_image(image.data, image.path.name)
    pixels = recompress(read, image.crf)
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
