"""The audio autoencoder: mel spectrograms to latents and back. The model is diffusers'."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .component import Component
from .convolution import use_quick_convolutions
from .video_vae import STATISTICS

# Together 128 features per latent frame.
CHANNELS = 8
MEL_BINS = 16


class AudioVae(Component):
    """diffusers' model, taking normalised latents.

    encodes: whether it has the encoder, which only a sound that is given needs.
    """

    def __init__(self, config: Mapping[str, Any], encodes: bool = True) -> None:
        from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import AutoencoderKLLTX2Audio

        super().__init__()
        params = config["model"]["params"]
        sizes = params["ddconfig"]
        self.model = AutoencoderKLLTX2Audio(
            base_channels=sizes["ch"],
            output_channels=sizes["out_ch"],
            ch_mult=tuple(sizes["ch_mult"]),
            num_res_blocks=sizes["num_res_blocks"],
            attn_resolutions=tuple(sizes["attn_resolutions"]),
            in_channels=sizes["in_channels"],
            resolution=sizes["resolution"],
            latent_channels=sizes["z_channels"],
            norm_type=sizes["norm_type"],
            causality_axis=sizes["causality_axis"],
            dropout=sizes["dropout"],
            mid_block_add_attention=sizes["mid_block_add_attention"],
            sample_rate=params["sampling_rate"],
            mel_hop_length=config["preprocessing"]["stft"]["hop_length"],
            is_causal=config["preprocessing"]["stft"]["causal"],
            mel_bins=sizes["mel_bins"],
            double_z=sizes["double_z"],
        )
        # diffusers takes the width of its layers for the number of features.
        for name in STATISTICS.values():
            self.model.register_buffer(name, torch.empty(CHANNELS * MEL_BINS))
        self.encodes = encodes
        if not encodes:
            del self.model.encoder
        use_quick_convolutions(self)

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel [1, 2, frames, 64] to normalised latents [1, 8, ceil(frames / 4), 16].

        The means of the distribution that the encoder predicts.
        """
        means: Tensor = self.model.encoder(mel)[:, :CHANNELS]
        tokens = means.transpose(1, 2).flatten(2)
        tokens = (tokens - self.model.latents_mean) / self.model.latents_std
        latents: Tensor = tokens.unflatten(2, (CHANNELS, MEL_BINS)).transpose(1, 2)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [1, 8, frames, 16] to log-mel [1, 2, 4*frames - 3, 64]."""
        tokens = latents.transpose(1, 2).flatten(2)  # [1, frames, 128]
        tokens = tokens * self.model.latents_std + self.model.latents_mean
        latents = tokens.unflatten(2, (CHANNELS, MEL_BINS)).transpose(1, 2)
        mel: Tensor = self.model.decoder(latents)
        return mel


def file_to_module(key: str) -> str:
    """A published key, without `audio_vae.`, as a parameter name of AudioVae."""
    return "model." + STATISTICS.get(key, key)


def module_to_file(name: str) -> str:
    """The inverse of `file_to_module`."""
    published = {ours: theirs for theirs, ours in STATISTICS.items()}
    bare = name.removeprefix("model.")
    return published.get(bare, bare)
