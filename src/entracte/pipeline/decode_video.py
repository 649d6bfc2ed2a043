"""Video latents to frames, tile by tile, a chunk of frames at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from entracte.models.tiling import Tiling, decode_tiled
from entracte.models.video_vae import VideoVae

from .finite import require_finite


def decode_video(
    vae: VideoVae,
    latent: Tensor,
    tiling: Tiling,
    height: int | None = None,
    width: int | None = None,
) -> Iterator[Tensor]:
    """Normalised latents [1, channels, frames, h, w] to chunks [frames, height, width, 3] uint8.

    Chunks come in order, each as soon as no later tile can change it, on the CPU.
    height, width: what is cut from the centre; None: all. Raises NotFinite.
    """
    for pixels in decode_tiled(vae.decode, latent, tiling):
        pixels = _centre(_centre(pixels, -2, height), -1, width)
        levels = pixels.float().add_(1).mul_(127.5)
        require_finite("decode video", levels)
        levels = levels.clamp_(0, 255).round_()
        yield levels[0].permute(1, 2, 3, 0).to(torch.uint8).cpu().contiguous()


def _centre(pixels: Tensor, dim: int, length: int | None) -> Tensor:
    if length is None:
        return pixels
    return pixels.narrow(dim, (pixels.shape[dim] - length) // 2, length)
