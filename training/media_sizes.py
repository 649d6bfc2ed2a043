"""Sizes of what turns pixels and sound into latents and back: LTX-2.3's own keys, tiny widths.

The decoders bound the demonstration's time on a CPU, the parameters the size of the shipped files.
"""

from typing import Any

from entracte.synthetic import demo_config

# Decoder: 3.4 M parameters and 122 GFLOP for 384x256 with 49 frames; encoder: 1.3 M.
VIDEO_VAE: dict[str, Any] = demo_config.VIDEO_VAE | {
    "encoder_base_channels": 24,
    "decoder_base_channels": 24,
    "encoder_blocks": [
        ["res_x", {"num_layers": 1}],
        ["compress_space_res", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
        ["compress_time_res", {"multiplier": 1}],
        ["res_x", {"num_layers": 1}],
        ["compress_all_res", {"multiplier": 2}],
        ["res_x", {"num_layers": 1}],
        ["compress_all_res", {"multiplier": 1}],
    ],
    # From pixels inwards, as in the published config.
    "decoder_blocks": [
        ["res_x", {"num_layers": 1}],
        ["compress_space", {"multiplier": 2, "residual": True}],
        ["res_x", {"num_layers": 1}],
        ["compress_time", {"multiplier": 1, "residual": True}],
        ["res_x", {"num_layers": 3}],
        ["compress_all", {"multiplier": 1, "residual": True}],
        ["res_x", {"num_layers": 2}],
        ["compress_all", {"multiplier": 2, "residual": True}],
        ["res_x", {"num_layers": 1}],
    ],
}

AUDIO_VAE: dict[str, Any] = {
    "model": {
        "params": {
            "ddconfig": {
                "ch": 32,
                "out_ch": 2,
                "ch_mult": [1, 2, 2],
                "num_res_blocks": 1,
                "attn_resolutions": [],
                "in_channels": 2,
                "resolution": 256,
                "z_channels": 8,
                "norm_type": "pixel",
                "causality_axis": "height",
                "dropout": 0.0,
                "mid_block_add_attention": False,
                "mel_bins": 64,
                "double_z": True,
            },
            "sampling_rate": 16000,
        }
    },
    "preprocessing": {
        "stft": {"filter_length": 1024, "hop_length": 160, "causal": True},
        "mel": {"n_mel_channels": 64},
    },
}

_GENERATOR: dict[str, Any] = {
    "resblock": "AMP1",
    "stereo": True,
    "activation": "snakebeta",
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1], [3]],
}

# Fewer, larger steps up than the published one's: on a CPU an activation costs by its rate.
VOCODER: dict[str, Any] = {
    "vocoder": _GENERATOR
    | {
        "upsample_initial_channel": 192,
        "upsample_rates": [5, 4, 4, 2],
        "upsample_kernel_sizes": [11, 8, 8, 4],
    },
    "bwe": _GENERATOR
    | {
        "upsample_initial_channel": 96,
        "upsample_rates": [6, 5, 4, 2],
        "upsample_kernel_sizes": [12, 11, 8, 4],
        "input_sampling_rate": 16000,
        "output_sampling_rate": 48000,
        "n_fft": 256,
        "hop_length": 80,
        "num_mels": 32,
    },
}

UPSAMPLER: dict[str, Any] = {
    "in_channels": 128,
    "mid_channels": 64,
    "num_blocks_per_stage": 1,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
    "spatial_scale": 2.0,
    "rational_resampler": False,
}
