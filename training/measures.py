"""How well something came back, and pictures of it."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def psnr(made: Tensor, wanted: Tensor) -> Tensor:
    """Of pixels in -1..1 [B, 3, F, H, W], in dB for each of B."""
    error = (made.float().clamp(-1, 1) - wanted.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-8))


def contact_sheet(rows: list[Tensor], path: Path, frames: int = 4) -> None:
    """Write videos [3, F, H, W] in -1..1 as a PNG: a row each, of frames from first to last."""
    lines = []
    for video in rows:
        at = torch.linspace(0, video.shape[1] - 1, frames).round().long()
        picture = video.detach().float().cpu()[:, at].clamp(-1, 1)
        lines.append(picture.permute(0, 2, 1, 3).flatten(2))
    sheet = torch.cat(lines, 1).add(1).mul(127.5).round().byte()
    Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(path)
