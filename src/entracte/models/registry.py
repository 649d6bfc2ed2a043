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
from .gemma import TextEncoder
from .transformer import Transformer, TransformerConfig
from .upsampler import Upsampler
from .video_vae import VideoVae
from .vocoder import Vocoder

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
    """

    name: str
    defaults: Defaults
    builders: Mapping[str, Builder]
    blocks: Mapping[str, str]
    fixed_dtypes: Mapping[str, torch.dtype]

    def dtype_of(self, component: str, dtype: torch.dtype) -> torch.dtype:
        """What a component computes in, in a model of `dtype`."""
        return self.fixed_dtypes.get(component, dtype)


def _text_encoder(config: Config, _: Shapes) -> TextEncoder:
    from transformers import Gemma3Config

    return TextEncoder(Gemma3Config(**config))


def _connectors(config: Config, shapes: Shapes) -> Connectors:
    projection = shapes.get("text_embedding_projection.video_aggregate_embed.weight")
    if projection is None:
        raise CheckpointError("the checkpoint has no text_embedding_projection")
    return Connectors(config, text_width=projection[1])


# Another value belongs to another version's transformer.
LTX_2_3_TRANSFORMER: Config = MappingProxyType(
    {
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
)


def _transformer(config: Config, _: Shapes) -> Transformer:
    for key, expected in LTX_2_3_TRANSFORMER.items():
        if config.get(key) != expected:
            raise CheckpointError(
                f"transformer config has {key}={config.get(key)!r}; LTX-2.3 has {expected!r}"
            )
    return Transformer(TransformerConfig.from_header(config))


LTX_2_3 = ModelVersion(
    name="2.3",
    defaults=DEFAULTS["2.3"],
    builders=MappingProxyType(
        {
            "text_encoder": _text_encoder,
            "connectors": _connectors,
            "transformer": _transformer,
            "video_vae": lambda config, _: VideoVae(config),
            "audio_vae": lambda config, _: AudioVae(config),
            "vocoder": lambda config, _: Vocoder(config),
            "upsampler": lambda config, _: Upsampler(config),
        }
    ),
    blocks=MappingProxyType({"transformer": "transformer_blocks", "text_encoder": "model.layers"}),
    fixed_dtypes=MappingProxyType({"vocoder": torch.float32}),
)

VERSIONS: Mapping[str, ModelVersion] = MappingProxyType({LTX_2_3.name: LTX_2_3})
