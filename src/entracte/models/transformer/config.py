"""The transformer's sizes, read from a checkpoint header's `transformer` config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entracte.errors import CheckpointError

# What version 2.3 is; a header that says otherwise belongs to another version.
REQUIRED = {
    "rope_type": "split",
    "apply_gated_attention": True,
    "cross_attention_adaln": True,
    "caption_proj_before_connector": True,
    "av_cross_ada_norm": True,
    "use_middle_indices_grid": True,
    "frequencies_precision": "float64",
    "activation_fn": "gelu-approximate",
    "norm_elementwise_affine": False,
}


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """One modality of the transformer: video or audio."""

    in_channels: int
    out_channels: int
    heads: int
    head_dim: int
    context_dim: int
    max_positions: tuple[int, ...]

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Sizes and constants of an LTX-2.3 transformer.

    `timestep_scale` multiplies a sigma in 0..1 before it is embedded; `gate_timestep_scale` does so
    for the gates of the audio-video cross-attentions.
    """

    video: StreamConfig
    audio: StreamConfig
    layers: int
    norm_eps: float
    rope_theta: float
    timestep_scale: float
    gate_timestep_scale: float

    @classmethod
    def from_header(cls, config: Mapping[str, Any]) -> "TransformerConfig":
        """Read the `transformer` part of a header's config.

        Raises CheckpointError where a key is missing or describes another version's transformer.
        """
        for key, expected in REQUIRED.items():
            if config.get(key) != expected:
                raise CheckpointError(
                    f"transformer config has {key}={config.get(key)!r}; LTX-2.3 has {expected!r}"
                )
        try:
            return cls(
                video=StreamConfig(
                    in_channels=config["in_channels"],
                    out_channels=config["out_channels"],
                    heads=config["num_attention_heads"],
                    head_dim=config["attention_head_dim"],
                    context_dim=config["cross_attention_dim"],
                    max_positions=tuple(config["positional_embedding_max_pos"]),
                ),
                audio=StreamConfig(
                    in_channels=config["audio_in_channels"],
                    out_channels=config["audio_out_channels"],
                    heads=config["audio_num_attention_heads"],
                    head_dim=config["audio_attention_head_dim"],
                    context_dim=config["audio_cross_attention_dim"],
                    max_positions=tuple(config["audio_positional_embedding_max_pos"]),
                ),
                layers=config["num_layers"],
                norm_eps=config["norm_eps"],
                rope_theta=config["positional_embedding_theta"],
                timestep_scale=config["timestep_scale_multiplier"],
                gate_timestep_scale=config["av_ca_timestep_scale_multiplier"],
            )
        except KeyError as missing:
            raise CheckpointError(f"transformer config has no {missing}") from None
