"""diffusers' video VAE: its config as a list of blocks, its names as places in that list.

diffusers groups a resampling layer with its neighbouring residual blocks; the published layout,
and ours, has them in one flat list.
"""

import re
from collections.abc import Callable
from typing import Any

from .diffusers_configs import DiffusersConfig

KINDS = {
    "spatial": "compress_space",
    "temporal": "compress_time",
    "spatiotemporal": "compress_all",
}


def vae_config(config: DiffusersConfig) -> dict[str, Any]:
    """The published form of diffusers' config."""
    encoder: list[list[Any]] = []
    width = config["latent_channels"]
    for layers, kind, wider in zip(
        config["layers_per_block"],
        config["downsample_type"],
        config["block_out_channels"],
        strict=False,
    ):
        encoder.append(["res_x", {"num_layers": layers}])
        encoder.append([f"{KINDS[kind]}_res", {"multiplier": wider // width}])
        width = wider
    encoder.append(["res_x", {"num_layers": config["layers_per_block"][-1]}])

    # In the order of computing: diffusers lists all but the kinds the other way round.
    layers = list(reversed(config["decoder_layers_per_block"]))
    decoder: list[list[Any]] = [["res_x", {"num_layers": layers[0]}]]
    for count, kind, factor, residual in zip(
        layers[1:],
        config["upsample_type"],
        reversed(config["upsample_factor"]),
        reversed(config["upsample_residual"]),
        strict=True,
    ):
        decoder.append([KINDS[kind], {"multiplier": factor, "residual": residual}])
        decoder.append(["res_x", {"num_layers": count}])

    widest = config["decoder_block_out_channels"][-1]
    for _, options in decoder:
        widest //= options.get("multiplier", 1)
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "latent_channels": config["latent_channels"],
        "patch_size": config["patch_size"],
        "encoder_blocks": encoder,
        "decoder_blocks": decoder[::-1],
        "decoder_base_channels": widest,
        "causal_decoder": config["decoder_causal"],
        "timestep_conditioning": config["timestep_conditioning"],
        "encoder_spatial_padding_mode": config["encoder_spatial_padding_mode"],
        "decoder_spatial_padding_mode": config["decoder_spatial_padding_mode"],
    }


def vae_names(config: DiffusersConfig) -> Callable[[str], str]:
    """From diffusers' names to ours, for a model of this config."""
    last_down = 2 * len(config["block_out_channels"])

    def rename(name: str) -> str:
        side, _, rest = name.partition(".")
        if side == "encoder":
            rest = re.sub(r"^down_blocks\.(\d+)\.(resnets|downsamplers\.0)", _down, rest)
            rest = re.sub(r"^mid_block\.", f"down_blocks.{last_down}.", rest)
        elif side == "decoder":
            rest = re.sub(r"^up_blocks\.(\d+)\.(resnets|upsamplers\.0)", _up, rest)
            rest = re.sub(r"^mid_block\.", "up_blocks.0.", rest)
        return f"{side}.{rest}" if rest else side

    return rename


def _down(match: re.Match[str]) -> str:
    block, part = int(match[1]), match[2]
    return (
        f"down_blocks.{2 * block}.resnets" if part == "resnets" else f"down_blocks.{2 * block + 1}"
    )


def _up(match: re.Match[str]) -> str:
    block, part = int(match[1]), match[2]
    return (
        f"up_blocks.{2 * block + 2}.resnets" if part == "resnets" else f"up_blocks.{2 * block + 1}"
    )
