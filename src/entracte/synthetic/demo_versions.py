"""Demonstration models of the other versions of LTX, with random weights: LTX-2.0 and LTX-2.5.

LTX-2.0 is one file and a folder of Gemma 3, LTX-2.5 the split files that it is published in.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from entracte.errors import MediaError
from entracte.models import video_vae
from entracte.models.connectors import Connectors
from entracte.models.duration_head import DurationHead
from entracte.models.gemma4 import Gemma4
from entracte.models.transformer import Transformer, TransformerConfig

from . import demo_config as sizes
from .demo import (
    GEMMA,
    LORA_RANK,
    SEED,
    connector_key,
    demo_video_vae,
    published_weights,
    sound_weights,
    write_gemma,
    write_lora,
    write_tokenizer,
    write_upsampler,
)

Version = Literal["2.0", "2.5"]

WIDTH = sizes.GEMMA["text_config"]["hidden_size"]
LAYERS = sizes.GEMMA["text_config"]["num_hidden_layers"]
OF_2_3 = (
    "apply_gated_attention",
    "cross_attention_adaln",
    "caption_proj_before_connector",
    "caption_projection_first_linear",
    "caption_proj_input_norm",
    "caption_projection_second_linear",
    "connector_apply_gated_attention",
    "audio_connector_num_attention_heads",
    "audio_connector_attention_head_dim",
    "audio_connector_num_layers",
)

TRANSFORMER_2_0: dict[str, Any] = {
    **{name: value for name, value in sizes.TRANSFORMER.items() if name not in OF_2_3},
    "caption_channels": WIDTH,
    "connector_num_attention_heads": 4,
    "connector_attention_head_dim": WIDTH // 4,
}
VIDEO_VAE_2_0 = {name: value for name, value in sizes.VIDEO_VAE.items() if "spatial" not in name}
VOCODER_2_0: dict[str, Any] = {
    "resblock": "1",
    "stereo": True,
    "upsample_initial_channel": 64,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1], [3]],
}

TRANSFORMER_2_5: dict[str, Any] = {
    **sizes.TRANSFORMER,
    "ff_bias": False,
    "use_keyframes_abs_pos_embedding": True,
}
VIDEO_VAE_2_5 = VIDEO_VAE_2_0 | {
    "encoder_spatial_padding_mode": "zeros",
    "decoder_spatial_padding_mode": "reflect",
}
DURATION_HEAD = {"pooler_hidden_dim": 32, "num_queries": 1, "num_pooler_heads": 4, "mlp_hidden": 32}
GEMMA_VERSION = "gemma4-demo"
GEMMA_2_5: dict[str, Any] = {
    "model_type": "gemma4_unified",
    "gemma_version": GEMMA_VERSION,
    "text_config": {
        **sizes.GEMMA["text_config"],
        "model_type": "gemma4_unified_text",
        "rms_norm_eps": 1e-6,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "num_kv_shared_layers": 0,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": 0.25,
                "rope_theta": 1e6,
            },
        },
    },
}


def write_demo_version(folder: Path, version: Version) -> list[Path]:
    """Write all files of a version's demonstration model into a folder, created if missing.

    The weights are the same every time. Returns the files' paths. Raises MediaError if the system
    refuses to write.
    """
    write = {"2.0": _write_2_0, "2.5": _write_2_5}[version]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            write(folder)
    except OSError as error:
        raise MediaError(f"cannot write the model to {folder}: {error.strerror}") from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_2_0(folder: Path) -> None:
    transformer = _transformer(TRANSFORMER_2_0)
    connectors = Connectors(TRANSFORMER_2_0, WIDTH * (LAYERS + 1), shared=True)
    config = {
        "transformer": TRANSFORMER_2_0,
        "vae": VIDEO_VAE_2_0,
        "audio_vae": sizes.AUDIO_VAE,
        "vocoder": VOCODER_2_0,
    }
    tensors = {
        **published_weights(transformer, "model.diffusion_model.{}".format),
        **published_weights(connectors, connector_key),
        **_video_vae(VIDEO_VAE_2_0, "vae."),
        **sound_weights(VOCODER_2_0),
    }
    _save(tensors, folder / "ltx-2-demo-dev.safetensors", config, "2.0.0")
    write_lora(folder / f"ltx-2-demo-distilled-lora-{LORA_RANK}.safetensors", transformer)
    write_upsampler(folder / "ltx-2-demo-spatial-upscaler-x2.safetensors")
    (folder / GEMMA).mkdir(exist_ok=True)
    write_gemma(folder / GEMMA)


def _write_2_5(folder: Path) -> None:
    def place(name: str) -> Path:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        return path

    transformer = _transformer(TRANSFORMER_2_5)
    connectors = Connectors(TRANSFORMER_2_5, WIDTH * (LAYERS + 1))
    text = published_weights(connectors, connector_key)
    projections = {key: text.pop(key) for key in list(text) if "aggregate_embed" in key}
    _save(
        {**published_weights(transformer, "model.diffusion_model.{}".format), **text},
        place("diffusion_models/ltx-2.5-demo-dev-transformer.safetensors"),
        {"transformer": TRANSFORMER_2_5},
        "2.5.0",
        gemma_source_checkpoint=json.dumps({"gemma_version": GEMMA_VERSION}),
    )
    encoder = published_weights(Gemma4(GEMMA_2_5), str)
    save_file(
        {**encoder, **projections, "tokenizer_json": _tokenizer()},
        place("text_encoders/gemma4-demo-with-proj-ltx-2.5.safetensors"),
        {"format": "pt", "gemma_config": json.dumps(GEMMA_2_5)},
    )
    video = place("vae/ltx-2.5-demo-video-vae-conv.safetensors")
    _save(_video_vae(VIDEO_VAE_2_5, ""), video, {"vae": VIDEO_VAE_2_5}, "2.5.0")
    sound = {"audio_vae": sizes.AUDIO_VAE, "vocoder": sizes.VOCODER}
    audio = place("vae/ltx-2.5-demo-audio-vae.safetensors")
    _save(sound_weights(sizes.VOCODER), audio, sound, "2.5.0")
    streams = ("cross_attention_dim", "audio_cross_attention_dim")
    head = DurationHead(DURATION_HEAD, *(TRANSFORMER_2_5[name] for name in streams))
    _save(
        published_weights(head, "duration_head.{}".format),
        place("model_patches/ltx-2.5-demo-duration-head.safetensors"),
        {"duration_head": DURATION_HEAD},
        "2.5.0",
    )
    write_lora(place(f"loras/ltx-2.5-demo-distilled-lora-{LORA_RANK}.safetensors"), transformer)
    write_upsampler(place("latent_upscale_models/ltx-2.5-demo-spatial-upscaler-x2.safetensors"))


def _transformer(config: Mapping[str, Any]) -> Transformer:
    return Transformer(TransformerConfig.from_header(config))


def _video_vae(config: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return published_weights(
        demo_video_vae(config), lambda n: f"{prefix}{video_vae.module_to_file(n)}"
    )


def _tokenizer() -> Tensor:
    """As a part of the text encoder's file: bytes of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        text = (Path(folder) / "tokenizer.json").read_bytes()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _save(
    tensors: dict[str, Tensor],
    path: Path,
    config: Mapping[str, Any],
    version: str,
    **metadata: str,
) -> None:
    save_file(tensors, path, {"config": json.dumps(config), "model_version": version, **metadata})
