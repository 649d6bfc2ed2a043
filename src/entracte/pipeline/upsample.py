"""Half-size video latents to full size."""

from torch import Tensor

from entracte.models.upsampler import Upsampler
from entracte.models.video_vae import VideoVae


def upsample(upsampler: Upsampler, vae: VideoVae, latent: Tensor) -> Tensor:
    """Normalised latents [1, channels, frames, h, w] to [1, channels, frames, 2h, 2w].

    The upsampler works on latents as the VAE makes them, before its statistics normalise them.
    """
    return vae.normalise(upsampler(vae.denormalise(latent)))
