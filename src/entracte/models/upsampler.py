"""The latent upsampler, which doubles height and width in latent space. The model is diffusers'."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from entracte.errors import CheckpointError

from .component import Component
from .convolution import use_quick_convolutions


class Upsampler(Component):
    """diffusers' model, built from the upsampler file's flat config.

    Raises CheckpointError for an upsampler that does anything else than double height and width.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

        super().__init__()
        check_kind(config)
        self.model = LTX2LatentUpsamplerModel(
            in_channels=config["in_channels"],
            mid_channels=config["mid_channels"],
            num_blocks_per_stage=config["num_blocks_per_stage"],
            dims=config["dims"],
            spatial_upsample=True,
            temporal_upsample=False,
            rational_spatial_scale=2.0,
            use_rational_resampler=config.get("rational_resampler", False),
        )
        use_quick_convolutions(self)

    def forward(self, latents: Tensor) -> Tensor:
        """Denormalised latents [1, channels, frames, h, w] to [1, channels, frames, 2h, 2w]."""
        out: Tensor = self.model(latents)
        return out


def check_kind(config: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless the config describes an upsampler that the recipes can use."""
    scale = config.get("spatial_scale", 2.0)
    if not config.get("spatial_upsample") or config.get("temporal_upsample") or scale != 2.0:
        raise CheckpointError(
            "the two-stage recipes need an upsampler that doubles height and width; this one has "
            f"spatial_upsample={config.get('spatial_upsample')}, "
            f"temporal_upsample={config.get('temporal_upsample')}, spatial_scale={scale}"
        )


def file_to_module(key: str) -> str:
    """A published key as a parameter name of Upsampler."""
    return f"model.{key}"


def module_to_file(name: str) -> str:
    """The inverse of `file_to_module`."""
    return name.removeprefix("model.")
