"""Configs of the diffusers layout, translated to the form of published headers. Needs no torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from entracte.errors import CheckpointError

from .json_file import read_json
from .official import MODEL_INDEX

DiffusersConfig = Mapping[str, Any]

CONFIG = "config.json"

Translated = TypeVar("Translated")


def is_diffusers_folder(folder: Path) -> bool:
    return (folder / MODEL_INDEX).is_file()


def require_ltx(folder: Path) -> None:
    """Raise CheckpointError if the folder is another pipeline's."""
    kind = read_json(folder / MODEL_INDEX).get("_class_name", "")
    if not str(kind).startswith("LTX2"):
        raise CheckpointError(f"{folder} holds a {kind or 'nameless'} pipeline, not an LTX-2 one")


def translated(root: Path, translate: Callable[[DiffusersConfig], Translated]) -> Translated:
    """What the config in a component's folder becomes; raises CheckpointError for a wrong one."""
    path = root / CONFIG
    config = read_json(path)
    try:
        return translate(config)
    except KeyError as missing:
        raise CheckpointError(f"{path} has no {missing}") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(f"{path} has a wrong value: {error}") from None


def transformer_config(config: DiffusersConfig) -> dict[str, Any]:
    """The published form of the config of diffusers' transformer."""
    return {
        "rope_type": config["rope_type"],
        "apply_gated_attention": config["gated_attn"] and config["audio_gated_attn"],
        "cross_attention_adaln": config["cross_attn_mod"] and config["audio_cross_attn_mod"],
        "caption_proj_before_connector": not config["use_prompt_embeddings"],
        "caption_channels": config["caption_channels"],
        "use_prompt_adaln_single": config.get("use_prompt_adaln_single", True),
        "ff_bias": config.get("ff_bias", True),
        "audio_ff_bias": config.get("audio_ff_bias", True),
        "use_keyframes_abs_pos_embedding": config.get("use_keyframes_abs_pos_embedding", False),
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


def connectors_config(config: DiffusersConfig) -> dict[str, Any]:
    translated: dict[str, Any] = {
        "norm_eps": 1e-6,
        "connector_apply_gated_attention": config["video_gated_attn"],
        "positional_embedding_theta": config["rope_theta"],
        "connector_positional_embedding_max_pos": [config["connector_rope_base_seq_len"]],
    }
    for theirs, ours in (("video_", ""), ("audio_", "audio_")):
        for size in ("num_attention_heads", "attention_head_dim", "num_layers"):
            translated[f"{ours}connector_{size}"] = config[f"{theirs}connector_{size}"]
    return translated


def audio_vae_config(config: DiffusersConfig) -> dict[str, Any]:
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


def vocoder_config(config: DiffusersConfig) -> dict[str, Any]:
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

    if "bwe_out_channels" not in config:
        return generator("") | {
            "resblock": "1",
            "output_sampling_rate": config["output_sampling_rate"],
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


def upsampler_config(config: DiffusersConfig) -> dict[str, Any]:
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
