"""The transformer's sizes, read from a checkpoint header's `transformer` config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entracte.errors import CheckpointError

Dimension = Annotated[int, Field(gt=0, le=10**6)]
Constant = Annotated[float, Field(gt=0, le=10**6)]


class HeaderValues(BaseModel):
    """The sizes and constants in a header."""

    model_config = ConfigDict(strict=True)

    num_layers: Dimension
    in_channels: Dimension
    out_channels: Dimension
    num_attention_heads: Dimension
    attention_head_dim: Dimension
    cross_attention_dim: Dimension
    positional_embedding_max_pos: Annotated[list[Dimension], Field(min_length=3, max_length=3)]
    audio_in_channels: Dimension
    audio_out_channels: Dimension
    audio_num_attention_heads: Dimension
    audio_attention_head_dim: Dimension
    audio_cross_attention_dim: Dimension
    audio_positional_embedding_max_pos: Annotated[
        list[Dimension], Field(min_length=1, max_length=1)
    ]
    caption_channels: Dimension | None = None
    apply_gated_attention: bool = False
    cross_attention_adaln: bool = False
    caption_proj_before_connector: bool = False
    use_prompt_adaln_single: bool = True
    ff_bias: bool = True
    audio_ff_bias: bool = True
    use_keyframes_abs_pos_embedding: bool = False
    norm_eps: Constant
    positional_embedding_theta: Constant
    timestep_scale_multiplier: Constant
    av_ca_timestep_scale_multiplier: Constant


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
    """Sizes and constants of a transformer.

    `timestep_scale` multiplies a sigma in 0..1 before it is embedded; `gate_timestep_scale` does so
    for the gates of the audio-video cross-attentions.

    What differs between versions: gated: whether a head's output has a gate. modulates_text:
    whether text attention is modulated by timesteps, as other sublayers are, and its keys and
    values by the noise level. caption_width: of the text contexts that are given, which are then
    projected here; None where the connectors did that. ff_bias, audio_ff_bias: whether the
    feed-forwards have biases. marks_pictures: whether tokens that stand for a single picture,
    rather than for eight frames, are told apart by an embedding.
    """

    video: StreamConfig
    audio: StreamConfig
    layers: int
    norm_eps: float
    rope_theta: float
    timestep_scale: float
    gate_timestep_scale: float
    gated: bool = True
    modulates_text: bool = True
    caption_width: int | None = None
    ff_bias: bool = True
    audio_ff_bias: bool = True
    marks_pictures: bool = False

    @property
    def context_widths(self) -> tuple[int, int]:
        """Of the text contexts that are given, for video and audio."""
        own = self.video.context_dim, self.audio.context_dim
        return own if self.caption_width is None else (self.caption_width, self.caption_width)

    @property
    def modulation_rows(self) -> int:
        """Vectors of every timestep: a shift, a scale and a gate for each modulated sublayer."""
        return 9 if self.modulates_text else 6

    @classmethod
    def from_header(cls, config: Mapping[str, Any]) -> "TransformerConfig":
        """Read the `transformer` part of a header's config.

        Raises CheckpointError if a value is missing, out of bounds, or contradicts others.
        """
        try:
            values = HeaderValues.model_validate(dict(config))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise CheckpointError(f"transformer config: {where}: {first['msg']}") from None
        projected = not values.caption_proj_before_connector
        if projected and values.caption_channels is None:
            raise CheckpointError("transformer config has no caption_channels")
        if values.cross_attention_adaln and not values.use_prompt_adaln_single:
            raise CheckpointError(
                "transformer config has use_prompt_adaln_single=False, which no published model has"
            )
        return cls(
            video=StreamConfig(
                in_channels=values.in_channels,
                out_channels=values.out_channels,
                heads=values.num_attention_heads,
                head_dim=values.attention_head_dim,
                context_dim=values.cross_attention_dim,
                max_positions=tuple(values.positional_embedding_max_pos),
            ),
            audio=StreamConfig(
                in_channels=values.audio_in_channels,
                out_channels=values.audio_out_channels,
                heads=values.audio_num_attention_heads,
                head_dim=values.audio_attention_head_dim,
                context_dim=values.audio_cross_attention_dim,
                max_positions=tuple(values.audio_positional_embedding_max_pos),
            ),
            layers=values.num_layers,
            norm_eps=values.norm_eps,
            rope_theta=values.positional_embedding_theta,
            timestep_scale=values.timestep_scale_multiplier,
            gate_timestep_scale=values.av_ca_timestep_scale_multiplier,
            gated=values.apply_gated_attention,
            modulates_text=values.cross_attention_adaln,
            caption_width=values.caption_channels if projected else None,
            ff_bias=values.ff_bias,
            audio_ff_bias=values.audio_ff_bias,
            marks_pictures=values.use_keyframes_abs_pos_embedding,
        )
