"""Decoding and encoding a video in overlapping tiles, so that memory does not grow with its size.

Neighbouring tiles are blended linearly over their overlap. Decoded frames are yielded as soon as
they are final, before later tiles are decoded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .video_vae import SPATIAL_SCALE, TEMPORAL_SCALE

Decode = Callable[[Tensor], Tensor]
Encode = Callable[[Tensor], Tensor]

Spans = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes of a tile and of its overlap with the next, in pixels and in frames."""

    pixels: int = 768
    pixel_overlap: int = 64
    frames: int = 80
    frame_overlap: int = 24


def decode_tiled(decode: Decode, latent: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """Decode [1, channels, frames, h, w] into chunks of [1, 3, pixel frames, height, width]."""
    return blend(map(decode, cut(latent, tiling)), latent, tiling)


def cut(latent: Tensor, tiling: Tiling) -> list[Tensor]:
    """The tiles of a latent, [1, channels, frames, h, w] each, in the order that `blend` takes."""
    times, rows, columns = _spans(latent, tiling)
    return [
        latent[:, :, start:stop, top:bottom, left:right]
        for start, stop in times
        for top, bottom in rows
        for left, right in columns
    ]


def blend(tiles: Iterator[Tensor], latent: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """Blend the pixels of all tiles of a latent, in order, into chunks of frames.

    tiles: [1, 3, frames, height, width] each; may be overwritten. A tile that begins at latent
    frame s > 0 takes it for the first of a video, which decodes to one pixel frame: its pixel frame
    j is frame 8s + j of the whole.
    """
    times, *_ = _spans(latent, tiling)
    tail: Tensor | None = None  # decoded frames that the next tile is still blended into
    for number, (start, _) in enumerate(times):
        pixels = _blend_areas(tiles, latent, tiling)
        if tail is not None:
            shared = tail.shape[2]
            rising = torch.linspace(0, 1, shared, device=pixels.device).view(-1, 1, 1)
            pixels[:, :, :shared] = torch.lerp(
                tail.float(), pixels[:, :, :shared].float(), rising
            ).to(pixels.dtype)
        if number + 1 == len(times):
            yield pixels
            return
        final = (times[number + 1][0] - start) * TEMPORAL_SCALE
        yield pixels[:, :, :final]
        tail = pixels[:, :, final:]


def encode_tiled(encode: Encode, pixels: Tensor, tiling: Tiling) -> Tensor:
    """Encode pixels [1, 3, 8k+1, height, width] into latents [1, channels, k+1, h, w].

    A tile that begins at latent frame s > 0 begins with pixel frame 8s, as if it were the first of
    a video; of the latent that this one frame becomes nothing is taken.
    """
    frames = (pixels.shape[2] - 1) // TEMPORAL_SCALE + 1
    height, width = (side // SPATIAL_SCALE for side in pixels.shape[3:])
    times, rows, columns = _spans_of(frames, height, width, tiling)
    if len(times) == len(rows) == len(columns) == 1:
        return encode(pixels)

    later = tiling.frame_overlap // TEMPORAL_SCALE
    beside = tiling.pixel_overlap // SPATIAL_SCALE
    total: Tensor | None = None
    for start, stop in times:
        for top, bottom in rows:
            for left, right in columns:
                tile = encode(
                    pixels[
                        :,
                        :,
                        start * TEMPORAL_SCALE : (stop - 1) * TEMPORAL_SCALE + 1,
                        top * SPATIAL_SCALE : bottom * SPATIAL_SCALE,
                        left * SPATIAL_SCALE : right * SPATIAL_SCALE,
                    ]
                )
                if total is None:
                    shape = (1, tile.shape[1], frames, height, width)
                    total = torch.zeros(shape, device=pixels.device)
                weights = _weights(start, stop, frames, later, 0.0, tile)[:, None, None]
                weights = weights * _weights(top, bottom, height, beside, 0.5, tile)[:, None]
                weights = weights * _weights(left, right, width, beside, 0.5, tile)
                total[:, :, start:stop, top:bottom, left:right] += tile * weights
    assert total is not None
    return total.to(pixels.dtype)


def encoded_tiles(frames: int, height: int, width: int, tiling: Tiling) -> list[tuple[int, int]]:
    """Of each tile that a video of so many latents is encoded in, the latent frames, and the places
    of a frame.
    """
    times, rows, columns = (
        [stop - start for start, stop in spans]
        for spans in _spans_of(frames, height, width, tiling)
    )
    return [(time, row * column) for time in times for row in rows for column in columns]


def tile_spans(length: int, tile: int, overlap: int) -> Spans:
    """[start, stop) of the tiles that cover a length; neighbours share at least `overlap`."""
    spans = []
    start = 0
    while start + tile < length:
        spans.append((start, start + tile))
        start += tile - overlap
    return [*spans, (start, length)]


def _spans(latent: Tensor, tiling: Tiling) -> tuple[Spans, Spans, Spans]:
    """Of the tiles, along time, height and width."""
    frames, height, width = latent.shape[2:]
    return _spans_of(frames, height, width, tiling)


def _spans_of(frames: int, height: int, width: int, tiling: Tiling) -> tuple[Spans, Spans, Spans]:
    size, overlap = tiling.pixels // SPATIAL_SCALE, tiling.pixel_overlap // SPATIAL_SCALE
    return (
        tile_spans(frames, tiling.frames // TEMPORAL_SCALE, tiling.frame_overlap // TEMPORAL_SCALE),
        tile_spans(height, size, overlap),
        tile_spans(width, size, overlap),
    )


def _blend_areas(tiles: Iterator[Tensor], latent: Tensor, tiling: Tiling) -> Tensor:
    """The pixels of the frames of the next tiles."""
    overlap = tiling.pixel_overlap // SPATIAL_SCALE
    height, width = latent.shape[3:]
    _, rows, columns = _spans(latent, tiling)
    if len(rows) == len(columns) == 1:
        return next(tiles)

    total: Tensor | None = None
    for top, bottom in rows:
        for left, right in columns:
            pixels = next(tiles)
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
    start, stop, length, shared = (each * SPATIAL_SCALE for each in (start, stop, length, overlap))
    return _weights(start, stop, length, shared, 0.5, like)


def _weights(start: int, stop: int, length: int, shared: int, first: float, like: Tensor) -> Tensor:
    """As `_ramp`, in any unit. first: of the weights that rise, in steps."""
    weights = torch.ones(stop - start, device=like.device)
    rising = (torch.arange(shared, device=like.device) + first) / shared
    if start > 0:
        weights[:shared] = rising[: stop - start]
    if stop < length:
        weights[-shared:] = 1 - rising
    return weights
