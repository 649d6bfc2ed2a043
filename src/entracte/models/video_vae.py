"""The causal video autoencoder: pixels to latents (32x in space, 8x in time) and back.

The layers are diffusers', which is imported when one is built: that takes seconds. The order of the
blocks is read from the checkpoint's config, which diffusers' own model cannot express for every
list of blocks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.errors import CheckpointError

from .component import Component
from .convolution import use_quick_convolutions

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import LTX2VideoMidBlock3d

SPATIAL_SCALE = 32
TEMPORAL_SCALE = 8

STATISTICS = {
    "per_channel_statistics.mean-of-means": "latents_mean",
    "per_channel_statistics.std-of-means": "latents_std",
}

# The strides (time, height, width) of a block's resampling; the encoder's names end in `_res`.
STRIDES = {"compress_space": (1, 2, 2), "compress_time": (2, 1, 1), "compress_all": (2, 2, 2)}


def is_diffusion_vae(config: object) -> bool:
    """Whether a `vae` config is that of one whose decoder is a diffusion model."""
    return isinstance(config, Mapping) and config.get("_class_name") == "CausalDiffusionVAE"


class VideoVae(Component):
    """Encoder and decoder between pixels in -1..1 and normalised latents."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        if is_diffusion_vae(config):
            raise CheckpointError(
                "video VAE: its decoder is a diffusion model, which cannot be run yet; take "
                "ltx-2.5-video-vae-conv-bf16.safetensors"
            )
        if config.get("timestep_conditioning") or config.get("causal_decoder"):
            raise CheckpointError("video VAE config is not that of LTX-2")
        channels = config["latent_channels"]
        self.encoder = VideoEncoder(config)
        self.decoder = VideoDecoder(config)
        use_quick_convolutions(self)
        self.register_buffer("latents_mean", torch.empty(channels))
        self.register_buffer("latents_std", torch.empty(channels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [1, 3, 8k+1, height, width] in -1..1 to latents [1, channels, k+1, h/32, w/32]."""
        return self.normalise(self.encoder(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [1, channels, k+1, h, w] to pixels [1, 3, 8k+1, 32h, 32w]."""
        pixels: Tensor = self.decoder(self.denormalise(latents))
        return pixels

    def normalise(self, latents: Tensor) -> Tensor:
        return (latents - _per_channel(self.latents_mean)) / _per_channel(self.latents_std)

    def denormalise(self, latents: Tensor) -> Tensor:
        return latents * _per_channel(self.latents_std) + _per_channel(self.latents_mean)


class VideoEncoder(nn.Module):
    """Patches of 4x4 pixels, then residual blocks and downsampling; causal in time."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
            LTX2VideoCausalConv3d,
            LTX2VideoDownsampler3d,
            PerChannelRMSNorm,
        )

        super().__init__()
        self.patch = config["patch_size"]
        padding = spatial_padding(config, "encoder", "zeros")
        latent_channels = config["latent_channels"]
        width = config.get("encoder_base_channels", latent_channels)
        self.conv_in = LTX2VideoCausalConv3d(
            config["in_channels"] * self.patch**2, width, spatial_padding_mode=padding
        )
        self.down_blocks = nn.ModuleList()
        for kind, options in config["encoder_blocks"]:
            if kind == "res_x":
                self.down_blocks.append(_residual(width, options, padding))
                continue
            stride = STRIDES[kind.removesuffix("_res")]
            wider = width * options.get("multiplier", 2)
            self.down_blocks.append(LTX2VideoDownsampler3d(width, wider, stride, padding))
            width = wider
        self.norm_out = PerChannelRMSNorm()
        self.conv_out = LTX2VideoCausalConv3d(
            width, latent_channels + 1, spatial_padding_mode=padding
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """The means of the latents' distribution."""
        return self.moments(pixels)[:, :-1]

    def moments(self, pixels: Tensor) -> Tensor:
        """The means, and as the last channel the log variance, common to all."""
        p = self.patch
        x = pixels.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # [b, c, f, h, p, w, p]
        x = x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class VideoDecoder(nn.Module):
    """The encoder's mirror, not causal in time. The config lists its blocks from pixels inwards."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_ltx2 import (
            LTX2VideoCausalConv3d,
            LTX2VideoUpsampler3d,
            PerChannelRMSNorm,
        )

        super().__init__()
        self.patch = config["patch_size"]
        padding = spatial_padding(config, "decoder", "reflect")
        blocks: Sequence[tuple[str, Mapping[str, Any]]] = list(reversed(config["decoder_blocks"]))
        width = config.get("decoder_base_channels", 128)
        for kind, options in blocks:
            width *= 1 if kind == "res_x" else options.get("multiplier", 2)
        self.conv_in = LTX2VideoCausalConv3d(
            config["latent_channels"], width, spatial_padding_mode=padding
        )
        self.up_blocks = nn.ModuleList()
        for kind, options in blocks:
            if kind == "res_x":
                self.up_blocks.append(_residual(width, options, padding))
                continue
            narrowing = options.get("multiplier", 2)
            self.up_blocks.append(
                LTX2VideoUpsampler3d(
                    width,
                    stride=STRIDES[kind],
                    residual=options.get("residual", False),
                    upscale_factor=narrowing,
                    spatial_padding_mode=padding,
                )
            )
            width //= narrowing
        self.norm_out = PerChannelRMSNorm()
        self.conv_out = LTX2VideoCausalConv3d(
            width, config["out_channels"] * self.patch**2, spatial_padding_mode=padding
        )

    def forward(self, latents: Tensor) -> Tensor:
        x = self.conv_in(latents, causal=False)
        for block in self.up_blocks:
            x = block(x, causal=False)
        x = self.conv_out(F.silu(self.norm_out(x)), causal=False)
        return self.unpatch(x)

    def unpatch(self, x: Tensor) -> Tensor:
        """[1, channels, frames, h, w] to pixels [1, 3, frames, patch * h, patch * w]."""
        p = self.patch
        out: Tensor = x.unflatten(1, (-1, p, p))  # [b, c, p (width), p (height), f, h, w]
        return out.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)


def spatial_padding(config: Mapping[str, Any], side: str, default: str) -> str:
    """How convolutions pad at the edges of the picture.

    One value for both sides wins over a side's own, as officially.
    """
    own = config.get(f"{side}_spatial_padding_mode", default)
    found: str = config.get("spatial_padding_mode", own)
    return found


def file_to_module(key: str) -> str:
    """A published key, without `vae.`, as a parameter name of VideoVae."""
    return STATISTICS.get(key, key.replace(".res_blocks.", ".resnets."))


def module_to_file(name: str) -> str:
    """The inverse of `file_to_module`."""
    published = {ours: theirs for theirs, ours in STATISTICS.items()}
    return published.get(name, name.replace(".resnets.", ".res_blocks."))


def _residual(width: int, options: Mapping[str, Any], padding: str) -> "LTX2VideoMidBlock3d":
    from diffusers.models.autoencoders.autoencoder_kl_ltx2 import LTX2VideoMidBlock3d

    return LTX2VideoMidBlock3d(
        width, num_layers=options["num_layers"], spatial_padding_mode=padding
    )


def _per_channel(statistics: Tensor) -> Tensor:
    return statistics.view(1, -1, 1, 1, 1)
