"""How what decodes is run: by the models' own operators, or fused kernels in `models.kernels`."""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from .video_vae import VideoDecoder
    from .vocoder import Vocoder


class Decoders(Protocol):
    """Runs decoders, which hold the weights."""

    def video(self, decoder: "VideoDecoder", latents: Tensor) -> Tensor:
        """Latents [1, channels, k+1, h, w] to pixels [1, 3, 8k+1, 32h, 32w]."""

    def sound(self, vocoder: "Vocoder", mel: Tensor) -> Tensor:
        """Log-mel [1, 2, frames, 64] in the vocoder's dtype to a waveform [1, 2, samples]."""


class PlainDecoders:
    """By torch's operators."""

    def video(self, decoder: "VideoDecoder", latents: Tensor) -> Tensor:
        pixels: Tensor = decoder(latents)
        return pixels

    def sound(self, vocoder: "Vocoder", mel: Tensor) -> Tensor:
        waveform: Tensor = vocoder(mel)
        return waveform


PLAIN = PlainDecoders()
