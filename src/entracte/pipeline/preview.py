"""Previews: small pictures of a video that is still being denoised.

Decoding takes the decoder and its memory; colours alone need neither. Latents are nearly linear in
the mean colour of their pixels, so a linear map, fitted to the model's own encoder, gives one pixel
for every 32 x 32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from entracte.models.video_vae import SPATIAL_SCALE, VideoVae

SHADES = (-0.9, 0.0, 0.9)

# With fewer colours than channels, many maps fit; this takes nearly the smallest.
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Preview:
    """The middle of the video after a step: [height, width, 3] uint8, on the CPU."""

    stage: str
    step: int
    pixels: Tensor


PreviewCallback = Callable[[Preview], None]


class Previewer:
    """colours: [channels + 1, 3] float32, the last row for a constant."""

    def __init__(self, colours: Tensor) -> None:
        self._colours = colours

    @classmethod
    def fit(cls, vae: VideoVae, device: torch.device, dtype: torch.dtype) -> "Previewer":
        """Fit it to what the encoder makes of plain colours."""
        side = 2 * SPATIAL_SCALE
        colours = torch.tensor(list(product(SHADES, repeat=3)), device=device)
        rows = []
        for colour in colours:
            pixels = colour.to(dtype).view(1, 3, 1, 1, 1).expand(1, 3, 1, side, side)
            rows.append(vae.encode(pixels).float().mean(dim=(0, 2, 3, 4)))
        latents = _with_constant(torch.stack(rows))
        square = latents.T @ latents
        ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square), device=device)
        return cls(torch.linalg.solve(square + ridge, latents.T @ colours))

    def picture(self, latent: Tensor) -> Tensor:
        """Clean latents [1, channels, frames, height, width] to [height, width, 3] uint8.

        On the CPU; filled when the device has done what it was given before.
        """
        middle = latent[0, :, latent.shape[2] // 2].float().permute(1, 2, 0)
        levels = (_with_constant(middle) @ self._colours + 1) * 127.5
        return levels.clamp(0, 255).round().to(torch.uint8).to("cpu", non_blocking=True)


def _with_constant(latents: Tensor) -> Tensor:
    return torch.cat([latents, torch.ones_like(latents[..., :1])], dim=-1)
