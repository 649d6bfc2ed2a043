"""The sizes of models with random weights: LTX-2.3, and a medium one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import Gemma3Config

from entracte.checkpoints.published_sizes import published_listing
from entracte.models import audio_vae, upsampler, video_vae, vocoder
from entracte.models.audio_vae import AudioVae
from entracte.models.connectors import Connectors
from entracte.models.gemma import TextEncoder
from entracte.models.gemma4 import Gemma4
from entracte.models.transformer import Transformer, TransformerConfig
from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae
from entracte.models.vocoder import Vocoder

from . import demo_config as demo
from .demo import connector_key
from .demo_versions import GEMMA_2_5

TensorShapes = dict[str, tuple[int, ...]]

# Gemma 3 12B; every sixth layer attends to everything.
FULL_GEMMA: dict[str, Any] = {
    "num_hidden_layers": 48,
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 262208,
    "sliding_window": 1024,
    "layer_types": [
        "full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(48)
    ],
}

# LTX-2.5's Gemma 4: taken to be as wide and as deep as Gemma 3 12B, which its projections fit.
FULL_GEMMA_4: dict[str, Any] = {
    "model_type": "gemma4_unified",
    "text_config": {
        **FULL_GEMMA,
        "model_type": "gemma4_unified_text",
        "bos_token_id": 2,
        "rms_norm_eps": 1e-6,
        "global_head_dim": 512,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "rope_parameters": GEMMA_2_5["text_config"]["rope_parameters"],
    },
}

MEDIUM_TRANSFORMER = demo.TRANSFORMER | {
    "num_layers": 16,
    "num_attention_heads": 8,
    "attention_head_dim": 64,
    "cross_attention_dim": 512,
    "audio_num_attention_heads": 8,
    "audio_attention_head_dim": 32,
    "audio_cross_attention_dim": 256,
    "connector_num_attention_heads": 8,
    "connector_attention_head_dim": 64,
    "connector_num_layers": 2,
    "audio_connector_num_attention_heads": 8,
    "audio_connector_attention_head_dim": 32,
    "audio_connector_num_layers": 2,
}

# The published order of blocks, with fewer layers in each and fewer channels. The encoder begins
# with as many as a latent has: diffusers cannot express another beginning.
MEDIUM_VIDEO_VAE = demo.VIDEO_VAE | {
    "encoder_base_channels": 128,
    "decoder_base_channels": 32,
    "encoder_blocks": [
        ["res_x", {"num_layers": 1}],
        ["compress_space_res", {"multiplier": 1}],
        ["res_x", {"num_layers": 1}],
        ["compress_time_res", {"multiplier": 1}],
        ["res_x", {"num_layers": 1}],
        ["compress_all_res", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
        ["compress_all_res", {"multiplier": 1}],
        ["res_x", {"num_layers": 1}],
    ],
    "decoder_blocks": [
        ["res_x", {"num_layers": 1}],
        ["compress_space", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
        ["compress_time", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
        ["compress_all", {"multiplier": 1}],
        ["res_x", {"num_layers": 1}],
        ["compress_all", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
    ],
}

MEDIUM_AUDIO_VAE = demo.AUDIO_VAE | {
    "model": {
        "params": demo.AUDIO_VAE["model"]["params"]
        | {
            "ddconfig": demo.AUDIO_VAE["model"]["params"]["ddconfig"]
            | {"ch_mult": [1, 1, 2], "num_res_blocks": 1}
        }
    }
}

MEDIUM_VOCODER = {
    name: part | {"upsample_initial_channel": 128} for name, part in demo.VOCODER.items()
}

MEDIUM_UPSAMPLER = demo.UPSAMPLER | {"mid_channels": 128, "num_blocks_per_stage": 2}

MEDIUM_GEMMA = demo.GEMMA["text_config"] | {
    "vocab_size": 1024,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "sliding_window": 512,
    "query_pre_attn_scalar": 64,
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
}


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """A model as its files' headers would describe it, shapes by published key.

    version: by its name. config: of the checkpoint's header. gemma_config: with `text_config`.
    lora_rank: of the distilled LoRA, where it fits.
    """

    checkpoint: TensorShapes
    config: Mapping[str, Any]
    upsampler: TensorShapes
    upsampler_config: Mapping[str, Any]
    gemma: TensorShapes
    gemma_config: Mapping[str, Any]
    lora_rank: int
    version: str = "2.3"

    def with_blocks(self, count: int) -> "ModelSizes":
        """The same with only the first of the transformer's blocks."""
        transformer = {**self.config["transformer"], "num_layers": count}
        kept = {key: shape for key, shape in self.checkpoint.items() if _block(key) < count}
        return replace(self, checkpoint=kept, config={**self.config, "transformer": transformer})


def full_sizes(version: str = "2.3") -> ModelSizes:
    """The published checkpoint and upsampler, tensor by tensor, and Gemma 12B by its config."""
    listing = published_listing(version)
    if version == "2.5":
        return ModelSizes(
            checkpoint=_tuples(listing["tensors"]),
            config=listing["metadata"]["config"],
            upsampler=_tuples(listing["upsampler"]["tensors"]),
            upsampler_config=listing["upsampler"]["metadata"]["config"],
            gemma=_shapes(lambda: Gemma4(FULL_GEMMA_4), str),
            gemma_config=FULL_GEMMA_4,
            lora_rank=450,
            version=version,
        )
    gemma = Gemma3Config(text_config=FULL_GEMMA)
    return ModelSizes(
        checkpoint=_tuples(listing["tensors"]),
        config=listing["metadata"]["config"],
        upsampler=_tuples(listing["upsampler"]["tensors"]),
        upsampler_config=listing["upsampler"]["metadata"]["config"],
        gemma=_shapes(lambda: TextEncoder(gemma), _gemma_key),
        gemma_config=gemma.to_dict(),
        lora_rank=384,
        version=version,
    )


def medium_sizes() -> ModelSizes:
    """A model of the same structure with blocks of 12 MB, every dimension between the
    demonstration model's and the published one's.
    """
    gemma = Gemma3Config(text_config=MEDIUM_GEMMA)
    text_width = MEDIUM_GEMMA["hidden_size"] * (MEDIUM_GEMMA["num_hidden_layers"] + 1)
    config = {
        "transformer": MEDIUM_TRANSFORMER,
        "vae": MEDIUM_VIDEO_VAE,
        "audio_vae": MEDIUM_AUDIO_VAE,
        "vocoder": MEDIUM_VOCODER,
    }
    checkpoint = {
        **_shapes(
            lambda: Transformer(TransformerConfig.from_header(MEDIUM_TRANSFORMER)),
            "model.diffusion_model.{}".format,
        ),
        **_shapes(lambda: Connectors(MEDIUM_TRANSFORMER, text_width), connector_key),
        **_shapes(
            lambda: VideoVae(MEDIUM_VIDEO_VAE), lambda n: f"vae.{video_vae.module_to_file(n)}"
        ),
        **_shapes(
            lambda: AudioVae(MEDIUM_AUDIO_VAE), lambda n: f"audio_vae.{audio_vae.module_to_file(n)}"
        ),
        **_shapes(
            lambda: Vocoder(MEDIUM_VOCODER), lambda n: f"vocoder.{vocoder.module_to_file(n)}"
        ),
    }
    return ModelSizes(
        checkpoint=checkpoint,
        config=config,
        upsampler=_shapes(lambda: Upsampler(MEDIUM_UPSAMPLER), upsampler.module_to_file),
        upsampler_config=MEDIUM_UPSAMPLER,
        gemma=_shapes(lambda: TextEncoder(gemma), _gemma_key),
        gemma_config=gemma.to_dict(),
        lora_rank=64,
    )


def _block(key: str) -> int:
    """The number of the transformer's block that a tensor belongs to; -1 for others."""
    _, found, rest = key.partition(".diffusion_model.transformer_blocks.")
    return int(rest.partition(".")[0]) if found else -1


def _shapes(build: Callable[[], nn.Module], key: Callable[[str], str]) -> TensorShapes:
    """The shapes of a module's tensors, by published key; nothing is allocated."""
    with torch.device("meta"):
        module = build()
    return {key(name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _tuples(shapes: Mapping[str, list[int]]) -> TensorShapes:
    return {key: tuple(shape) for key, shape in shapes.items()}


def _gemma_key(name: str) -> str:
    return f"language_model.{name}"
