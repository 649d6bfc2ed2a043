"""Decoding a video in overlapping tiles, so that memory does not grow with its size.

Neighbouring tiles are blended linearly over their overlap. Frames are yielded as soon as they are
final, before later tiles are decoded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .video_vae import SPATIAL_SCALE, TEMPORAL_SCALE

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes of a tile and of its overlap with the next, in pixels and in frames."""

    pixels: int = 768
    pixel_overlap: int = 64
    frames: int = 80
    frame_overlap: int = 24


def decode_tiled(decode: Decode, latent: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """Decode [1, channels, frames, h, w] into chunks of [1, 3, pixel frames, height, width].

    A tile that begins at latent frame s > 0 takes it for the first of a video, which decodes to one
    pixel frame: its pixel frame j is frame 8s + j of the whole.
    """
    spans = tile_spans(
        latent.shape[2], tiling.frames // TEMPORAL_SCALE, tiling.frame_overlap // TEMPORAL_SCALE
    )
    tail: Tensor | None = None  # decoded frames that the next tile is still blended into
    for number, (start, stop) in enumerate(spans):
        pixels = _decode_frames(decode, latent[:, :, start:stop], tiling)
        if tail is not None:
            shared = tail.shape[2]
            rising = torch.linspace(0, 1, shared, device=pixels.device).view(-1, 1, 1)
            pixels[:, :, :shared] = torch.lerp(
                tail.float(), pixels[:, :, :shared].float(), rising
            ).to(pixels.dtype)
        if number + 1 == len(spans):
            yield pixels
            return
        final = (spans[number + 1][0] - start) * TEMPORAL_SCALE
        yield pixels[:, :, :final]
        tail = pixels[:, :, final:]


def tile_spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """[start, stop) of the tiles that cover a length; neighbours share at least `overlap`."""
    spans = []
    start = 0
    while start + tile < length:
        spans.append((start, start + tile))
        start += tile - overlap
    return [*spans, (start, length)]


def _decode_frames(decode: Decode, latent: Tensor, tiling: Tiling) -> Tensor:
    size, overlap = tiling.pixels // SPATIAL_SCALE, tiling.pixel_overlap // SPATIAL_SCALE
    height, width = latent.shape[3:]
    rows, columns = tile_spans(height, size, overlap), tile_spans(width, size, overlap)
    if len(rows) == len(columns) == 1:
        return decode(latent)

    total: Tensor | None = None
    for top, bottom in rows:
        for left, right in columns:
            pixels = decode(latent[:, :, :, top:bottom, left:right])
            if total is None:
                shape = (*pixels.shape[:3], height * SPATIAL_SCALE, width * SPATIAL_SCALE)
                total = torch.zeros(shape, device=pixels.device)
            weights = _ramp(top, bottom, height, overlap, pixels)[:, None]
            weights = weights * _ramp(left, right, width, overlap, pixels)
            area = total[
                ...,
                top * SPATIAL_SCALE : bottom * SPATIAL_SCALE,
                left * SPATIAL_SCALE : right * SPATIAL_SCALE,
            ]
            area += pixels * weights
    assert total is not None
    return total.to(latent.dtype)


def _ramp(start: int, stop: int, length: int, overlap: int, like: Tensor) -> Tensor:
    """A tile's weight at every pixel along one axis; the weights of neighbours add up to 1."""
    weights = torch.ones((stop - start) * SPATIAL_SCALE, device=like.device)
    shared = overlap * SPATIAL_SCALE
    rising = (torch.arange(shared, device=like.device) + 0.5) / shared
    if start > 0:
        weights[:shared] = rising
    if stop < length:
        weights[-shared:] = 1 - rising
    return weights
