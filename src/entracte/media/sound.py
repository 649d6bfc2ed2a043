"""Sound as long as its picture."""

import math
from fractions import Fraction

import torch.nn.functional as F
from torch import Tensor


def pad_to_picture(sound: Tensor, sample_rate: int, frames: int, frame_rate: Fraction) -> Tensor:
    """Pad sound [channels, samples] with silence if it is shorter than the picture.

    The model's sound ends some milliseconds early; a player that loops or joins clips would leave a
    gap.
    """
    missing = math.ceil(frames * sample_rate / frame_rate) - sound.shape[1]
    return F.pad(sound, (0, missing)) if missing > 0 else sound
