"""The diffusers layout: `model_index.json` and one folder a component.

Configs are translated to the form of published headers, and names to ours, so that no other file
depends on the layout.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from entracte.errors import CheckpointError
from entracte.models.registry import ModelVersion

from .diffusers_names import connectors_to_published, transformer_to_published
from .diffusers_vae import DiffusersConfig, vae_config, vae_names
from .gemma_folder import open_gemma
from .json_file import read_json
from .published import require_plain
from .shards import shards
from .sources import ComponentSource, Located
from .versions import model_version

MODEL_INDEX = "model_index.json"
WEIGHTS = "diffusion_pytorch_model"
UPSAMPLER = "latent_upsampler"


def is_diffusers_folder(folder: Path) -> bool:
    return (folder / MODEL_INDEX).is_file()


def open_diffusers(folder: Path) -> tuple[ModelVersion, dict[str, ComponentSource]]:
    """The version and the components of a diffusers folder; no weight is read.

    Raises CheckpointError for another pipeline's or version's folder, or one that misses a
    component.
    """
    kind = read_json(folder / MODEL_INDEX).get("_class_name", "")
    if not str(kind).startswith("LTX2"):
        raise CheckpointError(f"{folder} holds a {kind or 'nameless'} pipeline, not an LTX-2 one")
    components = {
        "text_encoder": open_gemma(folder / "text_encoder", tokenizer=folder / "tokenizer"),
        "transformer": _open(folder, "transformer", transformer_config, _transformer_names),
        "connectors": _open(folder, "connectors", _connectors_config, _connectors_names),
        "video_vae": _open(folder, "vae", vae_config, vae_names, "video_vae"),
        "audio_vae": _open(folder, "audio_vae", _audio_vae_config, _nested_names),
        "vocoder": _open(folder, "vocoder", _vocoder_config, _nested_names),
    }
    if (folder / UPSAMPLER).is_dir():
        components["upsampler"] = _open(
            folder, UPSAMPLER, _upsampler_config, _nested_names, "upsampler"
        )
    version = model_version({}, {"transformer": components["transformer"].config}, folder)
    return version, components


def _open(
    folder: Path,
    subfolder: str,
    translate: Callable[[DiffusersConfig], dict[str, Any]],
    names: Callable[[DiffusersConfig], Callable[[str], str]],
    component: str | None = None,
) -> ComponentSource:
    root = folder / subfolder
    config = read_json(root / "config.json")
    tensors: dict[str, Located] = {}
    try:
        translated, rename = translate(config), names(config)
    except KeyError as missing:
        raise CheckpointError(f"{root / 'config.json'} has no {missing}") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(f"{root / 'config.json'} has a wrong value: {error}") from None
    for file in shards(root, WEIGHTS):
        require_plain(file)
        tensors |= {rename(key): Located(file, key) for key in file.tensors}
    return ComponentSource(component or subfolder, translated, tensors)


def _transformer_names(_: DiffusersConfig) -> Callable[[str], str]:
    return transformer_to_published


def _connectors_names(_: DiffusersConfig) -> Callable[[str], str]:
    return connectors_to_published


def _nested_names(_: DiffusersConfig) -> Callable[[str], str]:
    return "model.{}".format


def transformer_config(config: DiffusersConfig) -> dict[str, Any]:
    """The published form of the config of diffusers' transformer."""
    return {
        "rope_type": config["rope_type"],
        "apply_gated_attention": config["gated_attn"] and config["audio_gated_attn"],
        "cross_attention_adaln": config["cross_attn_mod"] and config["audio_cross_attn_mod"],
        "caption_proj_before_connector": not config["use_prompt_embeddings"],
        "av_cross_ada_norm": True,
        "use_middle_indices_grid": True,
        "frequencies_precision": "float64" if config["rope_double_precision"] else "float32",
        "activation_fn": config["activation_fn"],
        "norm_elementwise_affine": config["norm_elementwise_affine"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "num_attention_heads": config["num_attention_heads"],
        "attention_head_dim": config["attention_head_dim"],
        "cross_attention_dim": config["cross_attention_dim"],
        "positional_embedding_max_pos": [
            config["pos_embed_max_pos"],
            config["base_height"],
            config["base_width"],
        ],
        "audio_in_channels": config["audio_in_channels"],
        "audio_out_channels": config["audio_out_channels"],
        "audio_num_attention_heads": config["audio_num_attention_heads"],
        "audio_attention_head_dim": config["audio_attention_head_dim"],
        "audio_cross_attention_dim": config["audio_cross_attention_dim"],
        "audio_positional_embedding_max_pos": [config["audio_pos_embed_max_pos"]],
        "num_layers": config["num_layers"],
        "norm_eps": config["norm_eps"],
        "positional_embedding_theta": config["rope_theta"],
        "timestep_scale_multiplier": config["timestep_scale_multiplier"],
        "av_ca_timestep_scale_multiplier": config["cross_attn_timestep_scale_multiplier"],
    }


def _connectors_config(config: DiffusersConfig) -> dict[str, Any]:
    translated = {
        "norm_eps": 1e-6,
        "positional_embedding_theta": config["rope_theta"],
        "connector_positional_embedding_max_pos": [config["connector_rope_base_seq_len"]],
    }
    for theirs, ours in (("video_", ""), ("audio_", "audio_")):
        for size in ("num_attention_heads", "attention_head_dim", "num_layers"):
            translated[f"{ours}connector_{size}"] = config[f"{theirs}connector_{size}"]
    return translated


def _audio_vae_config(config: DiffusersConfig) -> dict[str, Any]:
    sizes = {
        "ch": config["base_channels"],
        "out_ch": config["output_channels"],
        "ch_mult": config["ch_mult"],
        "num_res_blocks": config["num_res_blocks"],
        "attn_resolutions": config["attn_resolutions"] or [],
        "in_channels": config["in_channels"],
        "resolution": config["resolution"],
        "z_channels": config["latent_channels"],
        "norm_type": config["norm_type"],
        "causality_axis": config["causality_axis"],
        "dropout": config["dropout"],
        "mid_block_add_attention": config["mid_block_add_attention"],
        "mel_bins": config["mel_bins"],
        "double_z": config["double_z"],
    }
    return {
        "model": {"params": {"ddconfig": sizes, "sampling_rate": config["sample_rate"]}},
        "preprocessing": {
            "stft": {"hop_length": config["mel_hop_length"], "causal": config["is_causal"]}
        },
    }


def _vocoder_config(config: DiffusersConfig) -> dict[str, Any]:
    def generator(prefix: str) -> dict[str, Any]:
        return {
            "resblock": "AMP1",
            "stereo": config[f"{prefix}out_channels"] == 2,
            "activation": config[f"{prefix}act_fn"],
            "upsample_initial_channel": config[f"{prefix}hidden_channels"],
            "upsample_rates": config[f"{prefix}upsample_factors"],
            "upsample_kernel_sizes": config[f"{prefix}upsample_kernel_sizes"],
            "resblock_kernel_sizes": config[f"{prefix}resnet_kernel_sizes"],
            "resblock_dilation_sizes": config[f"{prefix}resnet_dilations"],
            "use_tanh_at_final": config[f"{prefix}final_act_fn"] == "tanh",
            "use_bias_at_final": config[f"{prefix}final_bias"],
        }

    return {
        "vocoder": generator(""),
        "bwe": generator("bwe_")
        | {
            "input_sampling_rate": config["input_sampling_rate"],
            "output_sampling_rate": config["output_sampling_rate"],
            "n_fft": config["filter_length"],
            "hop_length": config["hop_length"],
            "num_mels": config["num_mel_channels"],
        },
    }


def _upsampler_config(config: DiffusersConfig) -> dict[str, Any]:
    return {
        "in_channels": config["in_channels"],
        "mid_channels": config["mid_channels"],
        "num_blocks_per_stage": config["num_blocks_per_stage"],
        "dims": config["dims"],
        "spatial_upsample": config["spatial_upsample"],
        "temporal_upsample": config["temporal_upsample"],
        "spatial_scale": config["rational_spatial_scale"],
        "rational_resampler": config["use_rational_resampler"],
    }
