"""The decoders by fused kernels, with the channels of video last in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
import triton
from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
    LTX2VideoCausalConv3d,
    LTX2VideoUpsampler3d,
)
from diffusers.pipelines.ltx2.vocoder import AntiAliasAct1d
from torch import Tensor

from entracte.models.decoders import PLAIN
from entracte.models.video_vae import VideoDecoder
from entracte.models.vocoder import Vocoder

from .decoding_triton import (
    between_convolutions_kernel,
    downsample_kernel,
    upsampled_snake_kernel,
)
from .elementwise_triton import EXACT

# Numbers of a video that one program makes, and samples of a channel.
NUMBERS = 4096
SAMPLES = 1024

# Of a mean square, in every norm of the decoder.
NORM_EPS = 1e-8

Strides = tuple[int, int, int]


class FusedDecoders:
    """`Decoders` with one kernel between two convolutions of a video, and two for an activation of
    the vocoder.

    They round wherever torch's operators round. Sums are in an order of their own, and with
    channels last cuDNN, too, may sum a convolution's products in another one.
    """

    def video(self, decoder: VideoDecoder, latents: Tensor) -> Tensor:
        padding = decoder.conv_in.conv.padding_mode
        if padding != "zeros" or any(map(_has_residual, decoder.up_blocks)):
            return PLAIN.video(decoder, latents)  # as those of LTX-2.0 and 2.5 are
        ends = latents[:, :, :1], latents[:, :, -1:]
        padded = torch.cat([ends[0], latents, ends[1]], dim=2)
        padded = padded.contiguous(memory_format=torch.channels_last_3d)
        kept = padded
        for this, following in pairwise(_convolutions(decoder)):
            residual = kept if this.ends_residual else None
            x, padded = _between(this, this.products(padded), residual, following)
            if following.begins_residual:
                kept = x
        last = decoder.conv_out.conv
        return decoder.unpatch(F.conv3d(padded, last.weight, last.bias, padding=last.padding))

    def sound(self, vocoder: Vocoder, mel: Tensor) -> Tensor:
        waveform: Tensor = vocoder(mel, activated)
        return waveform


@dataclass(frozen=True, slots=True)
class _Convolution:
    """One of the decoder's convolutions.

    normed: its input is silu(norm(x)) instead of x. begins_residual: x is added to the result of
    the next one that `ends_residual`. strides: of the channels that become places afterwards.
    """

    layer: LTX2VideoCausalConv3d
    normed: bool
    begins_residual: bool = False
    ends_residual: bool = False
    strides: Strides = (1, 1, 1)

    def products(self, padded: Tensor) -> Tensor:
        """Of a video padded along time; without the bias."""
        conv = self.layer.conv
        return F.conv3d(padded, conv.weight, padding=conv.padding)


def _convolutions(decoder: VideoDecoder) -> Iterator[_Convolution]:
    """All of them, in order."""
    yield _Convolution(decoder.conv_in, normed=False)
    for block in decoder.up_blocks:
        if isinstance(block, LTX2VideoUpsampler3d):
            yield _Convolution(block.conv, normed=False, strides=block.stride)
            continue
        layers: Any = block.resnets
        for each in layers:
            yield _Convolution(each.conv1, normed=True, begins_residual=True)
            yield _Convolution(each.conv2, normed=True, ends_residual=True)
    yield _Convolution(decoder.conv_out, normed=True)


def _has_residual(block: object) -> bool:
    return isinstance(block, LTX2VideoUpsampler3d) and block.residual


def _between(
    before: _Convolution, products: Tensor, residual: Tensor | None, after: _Convolution
) -> tuple[Tensor, Tensor]:
    """What follows a convolution's products, and the next one's input, padded along time."""
    products = products.contiguous(memory_format=torch.channels_last_3d)
    _, wide, frames, height, width = products.shape
    frame_stride, row_stride, column_stride = before.strides
    channels = wide // (frame_stride * row_stride * column_stride)
    frames = frames * frame_stride - (frame_stride - 1)
    height, width = height * row_stride, width * column_stride
    padded = _empty(products, channels, frames + 2, height, width)
    kept = _empty(products, channels, frames, height, width) if after.begins_residual else padded
    power = triton.next_power_of_2(channels)
    places = max(1, NUMBERS // power)
    between_convolutions_kernel[(triton.cdiv(frames * height * width, places),)](
        products,
        before.layer.conv.bias,
        products if residual is None else residual,
        kept,
        padded,
        frames,
        height,
        width,
        NORM_EPS,
        FRAME_STRIDE=frame_stride,
        ROW_STRIDE=row_stride,
        COLUMN_STRIDE=column_stride,
        CHANNELS=channels,
        POWER=power,
        PLACES=places,
        RESIDUAL=residual is not None,
        KEPT=after.begins_residual,
        NORMED=after.normed,
        **EXACT,
    )
    return kept, padded


def _empty(like: Tensor, channels: int, frames: int, height: int, width: int) -> Tensor:
    """[1, channels, frames, height, width], with the channels last in memory."""
    return torch.empty(
        (1, channels, frames, height, width),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last_3d,
    )


def activated(activation: AntiAliasAct1d, x: Tensor) -> Tensor:
    """An activation of x [rows, channels, samples] float32, at twice its rate."""
    rows, channels, samples = x.shape
    x = x.contiguous()
    snake = activation.act
    doubled = x.new_empty(rows, channels, 2 * samples)
    out = torch.empty_like(x)
    grid = triton.cdiv(samples, SAMPLES), rows * channels
    upsampled_snake_kernel[grid](
        x,
        activation.upsample.filter,
        snake.alpha,
        snake.beta,
        doubled,
        channels,
        samples,
        snake.eps,
        BLOCK=SAMPLES,
        **EXACT,
    )
    downsample_kernel[grid](
        doubled, activation.downsample.filter, out, samples, BLOCK=SAMPLES, **EXACT
    )
    return out
