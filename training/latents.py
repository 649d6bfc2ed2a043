"""Clips as latents: rendered and encoded on the device that trains, and kept there.

A ring of clips is filled before a training begins, and a few are replaced at every step, so that
the same clip is seen only some dozen times, always with other noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from entracte.models.audio_vae import CHANNELS, AudioVae
from entracte.models.video_vae import VideoVae

from .loop import load_weights
from .media_sizes import AUDIO_VAE, VIDEO_VAE
from .sizes import AUDIO_TOKENS, FRAMES, HEIGHT, WIDTH
from .text import TOKENS, token_ids
from .waves import log_mel, narrowed
from .world import FRAME_RATE, SAMPLE_RATE, captions, picture, sample_scenes, sound
from .world.scenes import Split

# Frames that are kept as images too, for keyframes.
KEYFRAMES = (24, 48)

# How many captions each clip has.
CAPTIONS = 4


@dataclass(frozen=True, slots=True)
class Clips:
    """Normalised latents as tokens, in bfloat16, and captions.

    small, large: [n, tokens, 128] of stage 1's and of stage 2's size. small_stills, large_stills:
    [n, KEYFRAMES, frame's tokens, 128], of single frames. audio: [n, AUDIO_TOKENS, 128].
    ids: [n, CAPTIONS, TOKENS] int16.
    """

    small: Tensor
    large: Tensor
    small_stills: Tensor
    large_stills: Tensor
    audio: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)


class Encoders:
    """The trained autoencoders, frozen."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.video, self.sound = VideoVae(VIDEO_VAE), AudioVae(AUDIO_VAE)
        for name, module in (("video_vae", self.video), ("audio_vae", self.sound)):
            load_weights(folder / f"{name}.safetensors", module)
            module.to(device).requires_grad_(False)
        self._device = device
        with safe_open(folder / "video_vae.safetensors", framework="pt") as file:
            self.step = file.metadata()["step"]

    @torch.no_grad()
    def video_tokens(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, 8k+1, H, W] in -1..1 to normalised latents [n, tokens, 128] bfloat16."""
        with self._autocast():
            latents = self.video.encoder(pixels).float()
        tokens: Tensor = self.video.normalise(latents).flatten(2).transpose(1, 2)
        return tokens.bfloat16()

    @torch.no_grad()
    def pixels(self, tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
        """The inverse; frames, height and width of the latent."""
        latents = tokens.float().transpose(1, 2).unflatten(2, (frames, height, width))
        with self._autocast():
            return torch.cat([self.video.decode(each[None]).float() for each in latents])

    @torch.no_grad()
    def audio_tokens(self, waves: Tensor) -> Tensor:
        """Sound [n, 2, samples] at 48 kHz to normalised latents [n, AUDIO_TOKENS, 128] bfloat16."""
        mel = log_mel(narrowed(waves))[:, :, : 4 * AUDIO_TOKENS - 3]
        with self._autocast():
            latents = self.sound.model.encoder(mel)[:, :CHANNELS].float()
        tokens = latents.transpose(1, 2).flatten(2)
        model = self.sound.model
        normalised: Tensor = (tokens - model.latents_mean) / model.latents_std
        return normalised.bfloat16()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"
        )


def encode(
    encoders: Encoders,
    tokenizer: Tokenizer,
    count: int,
    seed: int,
    device: torch.device,
    split: Split = "train",
) -> Clips:
    """Render and encode clips."""
    scenes = sample_scenes(count, seed, split)
    ids = [token_ids(tokenizer, captions(scenes, CAPTIONS * seed + k)) for k in range(CAPTIONS)]
    scenes = scenes.to(device)
    begins = torch.zeros(count, device=device)
    times = begins[:, None] + torch.arange(FRAMES, device=device) / FRAME_RATE
    large = picture(scenes, times, HEIGHT, WIDTH)
    small = F.avg_pool2d(large.transpose(1, 2).flatten(0, 1), 2)
    small = small.unflatten(0, (count, FRAMES)).transpose(1, 2)

    def stills(pixels: Tensor) -> Tensor:
        return torch.stack(
            [encoders.video_tokens(pixels[:, :, at : at + 1]) for at in KEYFRAMES], 1
        )

    return Clips(
        encoders.video_tokens(small),
        encoders.video_tokens(large),
        stills(small),
        stills(large),
        encoders.audio_tokens(sound(scenes, begins, round(FRAMES / FRAME_RATE * SAMPLE_RATE))),
        torch.stack(ids, 1).to(device),
    )


class Pool:
    """A ring of clips. make: gives so many clips of a seed; seeds count up from the first."""

    def __init__(
        self, make: Callable[[int, int], Clips], size: int, at_once: int, seed: int
    ) -> None:
        self._make, self._at_once, self._seed = make, at_once, seed
        first = make(at_once, seed)
        fields = [getattr(first, name) for name in Clips.__slots__]
        self._all = [each.new_empty((size, *each.shape[1:])) for each in fields]
        self._size, self._next = size, 0
        for _ in range(0, size, at_once):
            self.refresh()

    def refresh(self) -> None:
        """Replace the oldest clips by new ones."""
        made = self._make(self._at_once, self._seed)
        self._seed += 1
        stop = min(self._next + self._at_once, self._size)
        for all_of, name in zip(self._all, Clips.__slots__, strict=True):
            all_of[self._next : stop] = getattr(made, name)[: stop - self._next]
        self._next = stop % self._size

    def draw(self, count: int, generator: torch.Generator) -> Clips:
        """Clips at random."""
        rows = torch.randint(self._size, (count,), generator=generator).to(self._all[0].device)
        return Clips(*(each[rows] for each in self._all))


__all__ = ["KEYFRAMES", "TOKENS", "Clips", "Encoders", "Pool", "encode"]
