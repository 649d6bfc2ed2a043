"""Audio latents to a waveform."""

import torch
from torch import Tensor

from entracte.models.audio_vae import AudioVae
from entracte.models.vocoder import Vocoder


def decode_audio(vae: AudioVae, vocoder: Vocoder, latent: Tensor) -> Tensor:
    """Normalised latents [1, 8, tokens, 16] to [channels, samples] float32 in -1..1, on the CPU."""
    waveform: Tensor = vocoder(vae.decode(latent).to(torch.float32))
    return waveform[0].cpu()
