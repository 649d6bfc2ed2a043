"""Clips as latents: rendered and encoded on the device that trains, and kept there.

A ring of clips is filled before a training begins, and a few are replaced every few steps, so that
the same clip is seen only some dozen times, always with other noise.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from entracte.models.audio_vae import CHANNELS, AudioVae
from entracte.models.video_vae import VideoVae
from entracte.sampling.tokens import VideoGrid

from .loop import load_weights
from .media_sizes import AUDIO_VAE, VIDEO_VAE
from .sizes import AUDIO_TOKENS, FRAMES
from .text import token_ids
from .waves import log_mel, narrowed
from .world import FRAME_RATE, SAMPLE_RATE, captions, objects_mask, picture, sample_scenes, sound
from .world.scenes import Scenes, Split

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# Frames that are kept as images too, for keyframes.
KEYFRAMES = (24, 48)

# How many captions each clip has.
CAPTIONS = 4

# A latent's pixel, in the picture's and in time.
CELL, FRAMES_OF_A_CELL = 32, 8


@dataclass(frozen=True, slots=True)
class Clips:
    """Normalised latents as tokens, in bfloat16, and captions.

    video: [n, tokens, 128]. objects: [n, tokens], 1 where objects are. stills: [n, KEYFRAMES,
    frame's tokens, 128], of single frames. audio: [n, AUDIO_TOKENS, 128].
    ids: [n, CAPTIONS, TOKENS] int16.
    """

    video: Tensor
    objects: Tensor
    stills: Tensor
    audio: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def repeated(self, times: int) -> "Clips":
        """Every clip so often, one after the other."""
        return Clips(*(getattr(self, each).repeat_interleave(times, 0) for each in Clips.__slots__))


class Encoders:
    """The trained autoencoders, frozen."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.video, self.sound = VideoVae(VIDEO_VAE), AudioVae(AUDIO_VAE)
        for name, module in (("video_vae", self.video), ("audio_vae", self.sound)):
            load_weights(folder / f"{name}.safetensors", module)
            module.to(device).requires_grad_(False)
        self.video.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._device = device

    @torch.no_grad()
    def video_tokens(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, 8k+1, H, W] in -1..1 to normalised latents [n, tokens, 128] bfloat16."""
        with self._autocast():
            latents = self.video.encoder(pixels).float()
        tokens: Tensor = self.video.normalise(latents).flatten(2).transpose(1, 2)
        return tokens.bfloat16()

    @torch.no_grad()
    def pixels(self, tokens: Tensor, grid: VideoGrid) -> Tensor:
        """The inverse of `video_tokens`."""
        latents = tokens.float().transpose(1, 2)
        latents = latents.unflatten(2, (grid.frames, grid.height, grid.width))
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
    grid: VideoGrid,
    count: int,
    seed: int,
    device: torch.device,
    split: Split = "train",
) -> Clips:
    """Render and encode clips of a grid's size."""
    scenes = sample_scenes(count, seed, split)
    ids = [token_ids(tokenizer, captions(scenes, CAPTIONS * seed + k)) for k in range(CAPTIONS)]
    scenes = scenes.to(device)
    begins = torch.zeros(count, device=device)
    times = begins[:, None] + torch.arange(FRAMES, device=device) / FRAME_RATE
    pixels = picture(scenes, times, CELL * grid.height, CELL * grid.width)
    stills = [encoders.video_tokens(pixels[:, :, at : at + 1]) for at in KEYFRAMES]
    return Clips(
        encoders.video_tokens(pixels),
        covered(scenes, times, grid).bfloat16(),
        torch.stack(stills, 1),
        encoders.audio_tokens(sound(scenes, begins, round(FRAMES / FRAME_RATE * SAMPLE_RATE))),
        torch.stack(ids, 1).to(device),
    )


def covered(scenes: Scenes, times: Tensor, grid: VideoGrid) -> Tensor:
    """[n, tokens]: 1 where an object is at some time of what a token stands for.

    Looked at in every other frame, at an eighth of the picture's size.
    """
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0], device=times.device).expand(len(scenes), 4)
    dense = CELL // 8
    mask = objects_mask(scenes, times[:, ::2], dense * grid.height, dense * grid.width, whole)
    mask = F.max_pool3d(mask, (1, dense, dense))
    half = FRAMES_OF_A_CELL // 2
    later = F.max_pool3d(mask[:, :, 1:], (half, 1, 1))
    return (torch.cat([mask[:, :, :1], later], 2).flatten(1) > 0.1).float()


class Pool(Generic[T]):
    """A ring of rows of tensors. make: gives so many of a seed, as a dataclass of tensors; seeds
    count up from the first.
    """

    def __init__(self, make: Callable[[int, int], T], size: int, at_once: int, seed: int) -> None:
        self._make, self._at_once, self._seed = make, at_once, seed
        first = make(at_once, seed)
        self._kind = type(first)
        self._all: dict[str, Tensor] = {}
        for field in fields(first):
            each = getattr(first, field.name)
            self._all[field.name] = each.new_empty((size, *each.shape[1:]))
        self._size, self._next = size, 0
        for _ in range(0, size, at_once):
            self.refresh()

    def refresh(self) -> None:
        """Replace the oldest rows by new ones."""
        made = self._make(self._at_once, self._seed)
        self._seed += 1
        stop = min(self._next + self._at_once, self._size)
        for name, all_of in self._all.items():
            all_of[self._next : stop] = getattr(made, name)[: stop - self._next]
        self._next = stop % self._size

    def draw(self, count: int, generator: torch.Generator) -> T:
        """Rows at random."""
        rows = torch.randint(self._size, (count,), generator=generator)
        rows = rows.to(next(iter(self._all.values())).device, non_blocking=True)
        return self._kind(**{name: each[rows] for name, each in self._all.items()})
