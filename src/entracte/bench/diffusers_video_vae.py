"""diffusers' video VAE, built from the published list of blocks.

diffusers groups a resampling layer with the residual layers beside it; the published layout, and
ours, has them in one flat list. `checkpoints.diffusers_vae` goes the other way.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKLLTX2Video
from torch import nn

from entracte.checkpoints.diffusers_configs import DiffusersConfig
from entracte.checkpoints.diffusers_vae import KINDS
from entracte.errors import CheckpointError
from entracte.models.video_vae import SPATIAL_SCALE, TEMPORAL_SCALE

DIFFUSERS_KINDS = {ours: theirs for theirs, ours in KINDS.items()}


@dataclass(frozen=True, slots=True)
class _Blocks:
    """One side of the video VAE in diffusers' grouping, in the order of computing.

    layers: residual layers before the first resampling, after it, and so on.
    resampling: the kind and the options of each.
    residual_at, resampling_at: their places in our flat list.
    """

    layers: list[int]
    resampling: list[tuple[str, Mapping[str, Any]]]
    residual_at: dict[int, int]
    resampling_at: list[int]

    @classmethod
    def group(cls, blocks: Sequence[tuple[str, Mapping[str, Any]]]) -> "_Blocks":
        grouped = cls([0], [], {}, [])
        for place, (kind, options) in enumerate(blocks):
            group = len(grouped.layers) - 1
            if kind != "res_x":
                grouped.resampling.append((kind.removesuffix("_res"), options))
                grouped.resampling_at.append(place)
                grouped.layers.append(0)
            elif group in grouped.residual_at:
                raise CheckpointError("diffusers' video VAE has no two lists of residual layers")
            else:
                grouped.layers[group] = options["num_layers"]
                grouped.residual_at[group] = place
        return grouped

    @property
    def kinds(self) -> list[str]:
        return [DIFFUSERS_KINDS[kind] for kind, _ in self.resampling]

    @property
    def factors(self) -> list[int]:
        return [options.get("multiplier", 2) for _, options in self.resampling]


def video_vae(config: DiffusersConfig) -> nn.Module:
    """The autoencoder of a published config.

    Where diffusers cannot express its encoder, which begins with another width than the latents',
    there is none. Raises CheckpointError where it cannot express the order of the blocks.
    """
    down, up = _both_sides(config)
    latent_channels = config["latent_channels"]
    widths = [latent_channels]
    for factor in down.factors:
        widths.append(widths[-1] * factor)
    narrowing = [config.get("decoder_base_channels", 128)]
    for factor in reversed(up.factors):
        narrowing.append(narrowing[-1] * factor)
    # diffusers lists the decoder from the pixels inwards, but for the kinds.
    model: nn.Module = AutoencoderKLLTX2Video(
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        latent_channels=latent_channels,
        block_out_channels=widths[1:],
        down_block_types=["LTX2VideoDownBlock3D"] * len(down.kinds),
        decoder_block_out_channels=narrowing[1:],
        layers_per_block=down.layers,
        decoder_layers_per_block=up.layers[::-1],
        spatio_temporal_scaling=[True] * len(down.kinds),
        decoder_spatio_temporal_scaling=[True] * len(up.kinds),
        decoder_inject_noise=[False] * len(up.layers),
        downsample_type=down.kinds,
        upsample_type=up.kinds,
        upsample_residual=[options.get("residual", False) for _, options in up.resampling][::-1],
        upsample_factor=up.factors[::-1],
        timestep_conditioning=False,
        patch_size=config["patch_size"],
        decoder_causal=False,
        encoder_spatial_padding_mode=config["encoder_spatial_padding_mode"],
        decoder_spatial_padding_mode=config["spatial_padding_mode"],
        spatial_compression_ratio=SPATIAL_SCALE,
        temporal_compression_ratio=TEMPORAL_SCALE,
    )
    if config.get("encoder_base_channels", latent_channels) != latent_channels:
        model.encoder = nn.Identity()
    return model


def video_vae_names(config: DiffusersConfig) -> Callable[[str], str]:
    """From diffusers' parameter names to ours, for an autoencoder of this config."""
    down, up = _both_sides(config)

    def rename(name: str) -> str:
        for pattern, place in (
            (r"^encoder\.down_blocks\.(\d+)\.resnets", lambda i: f"{down.residual_at[i]}.resnets"),
            (r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0", lambda i: down.resampling_at[i]),
            (r"^encoder\.mid_block()", lambda _: down.residual_at[len(down.kinds)]),
            (r"^decoder\.mid_block()", lambda _: up.residual_at[0]),
            (r"^decoder\.up_blocks\.(\d+)\.upsamplers\.0", lambda i: up.resampling_at[i]),
            (r"^decoder\.up_blocks\.(\d+)\.resnets", lambda i: f"{up.residual_at[i + 1]}.resnets"),
        ):
            found = re.match(pattern, name)
            if found:
                side = "encoder.down_blocks" if name.startswith("encoder") else "decoder.up_blocks"
                return f"{side}.{place(int(found[1] or 0))}{name[found.end() :]}"
        return name

    return rename


def _both_sides(config: DiffusersConfig) -> tuple[_Blocks, _Blocks]:
    """The encoder's and the decoder's blocks; the config lists the latter from pixels inwards."""
    return (
        _Blocks.group(config["encoder_blocks"]),
        _Blocks.group(list(reversed(config["decoder_blocks"]))),
    )
