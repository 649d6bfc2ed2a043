"""Renders scenes: picture and sound of the same moments."""

from fractions import Fraction

import torch
from torch import Tensor

from training.world.picture import picture
from training.world.scenes import Scenes
from training.world.sound import SAMPLE_RATE, sound

FRAME_RATE = 24.0


def render(
    scenes: Scenes,
    frames: int,
    height: int,
    width: int,
    frame_rate: float = FRAME_RATE,
    device: torch.device | str = "cpu",
    *,
    start: Tensor | float = 0.0,
    window: Tensor | None = None,
    sample_rate: int = SAMPLE_RATE,
) -> tuple[Tensor, Tensor]:
    """Render clips that begin at a time of their scene, in seconds: one for all, or (B,).

    Gives the video, float32 (B, 3, frames, height, width) in [-1, 1], and the sound, float32
    (B, 2, frames / frame_rate * sample_rate) in (-1, 1). A window (B, 4) is the part of the
    picture that is drawn: left, top, right and bottom, each in [0, 1].
    """
    scenes = scenes.to(device)
    begins = torch.as_tensor(start, dtype=torch.float32, device=device).expand(len(scenes))
    times = begins[:, None] + torch.arange(frames, device=device) / frame_rate
    samples = round(frames * sample_rate / Fraction(frame_rate).limit_denominator(1001))
    video = picture(scenes, times, height, width, window)
    return video, sound(scenes, begins, samples, sample_rate)
