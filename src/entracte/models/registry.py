"""The versions of LTX that can be run, and what a model of each is made of.

A further version is one more entry here, with its defaults in `entracte.versions`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from entracte.errors import CheckpointError
from entracte.versions import DEFAULTS, Defaults

from .audio_vae import AudioVae
from .component import Component
from .connectors import Connectors
from .duration_head import DurationHead
from .gemma import TextEncoder
from .gemma4 import Gemma4
from .transformer import Transformer, TransformerConfig
from .upsampler import Upsampler
from .video_vae import VideoVae
from .vocoder import Vocoder, extends_bandwidth

Config = Mapping[str, Any]

# The shapes of a component's tensors, by parameter name.
Shapes = Mapping[str, tuple[int, ...]]

# Builds a component from its config and shapes, on the current device. Raises CheckpointError or
# KeyError for a config that is not one of this version.
Builder = Callable[[Config, Shapes], Component]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of LTX.

    name: as a checkpoint's header declares it, without the patch level.
    defaults: what requests leave open.
    builders: of every component there may be, by name.
    blocks: by component, the name of its list of blocks, if they can be loaded one by one.
    fixed_dtypes: of components that compute in one dtype whatever the model's is.
    own_gemma: whether the text encoder is a Gemma 4 of its own, with the text projections.
    """

    name: str
    defaults: Defaults
    builders: Mapping[str, Builder]
    blocks: Mapping[str, str]
    fixed_dtypes: Mapping[str, torch.dtype]
    own_gemma: bool = False

    def dtype_of(self, component: str, dtype: torch.dtype) -> torch.dtype:
        """What a component computes in, in a model of `dtype`."""
        return self.fixed_dtypes.get(component, dtype)


# Of every version's transformer. What is False may be missing in its config.
ALL_TRANSFORMERS: Config = MappingProxyType(
    {
        "rope_type": "split",
        "av_cross_ada_norm": True,
        "use_middle_indices_grid": True,
        "frequencies_precision": "float64",
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
    }
)
LTX_2_0_TRANSFORMER: Config = MappingProxyType(
    {
        **ALL_TRANSFORMERS,
        "apply_gated_attention": False,
        "cross_attention_adaln": False,
        "caption_proj_before_connector": False,
        "use_keyframes_abs_pos_embedding": False,
    }
)
LTX_2_3_TRANSFORMER: Config = MappingProxyType(
    {
        **ALL_TRANSFORMERS,
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
        "caption_proj_before_connector": True,
        "use_keyframes_abs_pos_embedding": False,
    }
)

LTX_2_5_TRANSFORMER: Config = MappingProxyType(
    {**LTX_2_3_TRANSFORMER, "ff_bias": False, "use_keyframes_abs_pos_embedding": True}
)

# The projection of the text encoder's states: shared by both streams, or the video's.
SHARED_PROJECTION = "text_embedding_projection.aggregate_embed.weight"
VIDEO_PROJECTION = "text_embedding_projection.video_aggregate_embed.weight"


def _transformer(version: str, rules: Config) -> Builder:
    def build(config: Config, _: Shapes) -> Transformer:
        for key, expected in rules.items():
            found = config.get(key) if expected is not False else config.get(key) or False
            if found != expected:
                raise CheckpointError(
                    f"transformer config has {key}={config.get(key)!r}; LTX-{version} has "
                    f"{expected!r}"
                )
        return Transformer(TransformerConfig.from_header(config))

    return build


def _connectors(shared: bool) -> Builder:
    def build(config: Config, shapes: Shapes) -> Connectors:
        projection = shapes.get(SHARED_PROJECTION if shared else VIDEO_PROJECTION)
        if projection is None:
            raise CheckpointError("the checkpoint has no text_embedding_projection")
        return Connectors(config, text_width=projection[1], shared=shared)

    return build


def _vocoder(version: str, extends: bool) -> Builder:
    def build(config: Config, _: Shapes) -> Vocoder:
        if extends_bandwidth(config) != extends:
            has, other = ("no", "one") if extends else ("a", "none")
            raise CheckpointError(
                f"vocoder config has {has} bandwidth extension; LTX-{version} has {other}"
            )
        return Vocoder(config)

    return build


def _text_encoder(config: Config, _: Shapes) -> TextEncoder:
    from transformers import Gemma3Config

    return TextEncoder(Gemma3Config(**config))


def _gemma4(config: Config, _: Shapes) -> Gemma4:
    return Gemma4(config)


def _duration_head(config: Config, shapes: Shapes) -> DurationHead:
    video, audio = (shapes[f"{stream}_input_proj.weight"][1] for stream in ("video", "audio"))
    return DurationHead(config, video, audio)


def _audio_vae(config: Config, shapes: Shapes) -> AudioVae:
    return AudioVae(config, encodes=any(name.startswith("model.encoder.") for name in shapes))


COMMON: Mapping[str, Builder] = MappingProxyType(
    {
        "text_encoder": _text_encoder,
        "video_vae": lambda config, _: VideoVae(config),
        "audio_vae": _audio_vae,
        "upsampler": lambda config, _: Upsampler(config),
    }
)
BLOCKS = MappingProxyType({"transformer": "transformer_blocks", "text_encoder": "model.layers"})

LTX_2_0 = ModelVersion(
    name="2.0",
    defaults=DEFAULTS["2.0"],
    builders=MappingProxyType(
        {
            **COMMON,
            "connectors": _connectors(shared=True),
            "transformer": _transformer("2.0", LTX_2_0_TRANSFORMER),
            "vocoder": _vocoder("2.0", extends=False),
        }
    ),
    blocks=BLOCKS,
    fixed_dtypes=MappingProxyType({}),
)

LTX_2_3 = ModelVersion(
    name="2.3",
    defaults=DEFAULTS["2.3"],
    builders=MappingProxyType(
        {
            **COMMON,
            "connectors": _connectors(shared=False),
            "transformer": _transformer("2.3", LTX_2_3_TRANSFORMER),
            "vocoder": _vocoder("2.3", extends=True),
        }
    ),
    blocks=BLOCKS,
    fixed_dtypes=MappingProxyType({"vocoder": torch.float32}),
)

LTX_2_5 = ModelVersion(
    name="2.5",
    defaults=DEFAULTS["2.5"],
    builders=MappingProxyType(
        {
            **COMMON,
            "text_encoder": _gemma4,
            "connectors": _connectors(shared=False),
            "transformer": _transformer("2.5", LTX_2_5_TRANSFORMER),
            "vocoder": _vocoder("2.5", extends=True),
            "duration_head": _duration_head,
        }
    ),
    blocks=BLOCKS,
    fixed_dtypes=MappingProxyType({"vocoder": torch.float32}),
    own_gemma=True,
)

VERSIONS: Mapping[str, ModelVersion] = MappingProxyType(
    {each.name: each for each in (LTX_2_0, LTX_2_3, LTX_2_5)}
)
