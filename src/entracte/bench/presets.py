"""Standard requests for measurements."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from PIL import Image

# From text alone, or from a picture at the first frame, too.
BenchTask = Literal["t2v", "i2v"]
TASKS: Mapping[BenchTask, str] = MappingProxyType({"t2v": "text-to-video", "i2v": "image-to-video"})

# `seed` has the size, length and steps of the published measurements, as far as they are known.
PRESETS: Mapping[str, Mapping[str, int | float]] = MappingProxyType(
    {
        "seed": {
            "width": 768,
            "height": 512,
            "num_frames": 121,
            "frame_rate": 24.0,
            "num_inference_steps": 30,
        },
        "hd": {
            "width": 1536,
            "height": 1024,
            "num_frames": 121,
            "frame_rate": 24.0,
            "num_inference_steps": 30,
        },
        "short": {
            "width": 768,
            "height": 512,
            "num_frames": 25,
            "frame_rate": 24.0,
            "num_inference_steps": 30,
        },
        "cpu": {
            "width": 384,
            "height": 256,
            "num_frames": 25,
            "frame_rate": 24.0,
            "num_inference_steps": 8,
        },
    }
)

# Radians across a synthetic picture and down it, for red, green and blue.
WAVES = ((5.0, 9.0), (11.0, 3.0), (7.0, 13.0))

PROMPT = "A lighthouse at dusk, waves breaking on the rocks, a foghorn far away"


def write_picture(path: Path, width: int, height: int) -> None:
    """Write a synthetic picture for image-to-video, the same every time: waves of colour."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / width * across + y / height * down) for across, down in WAVES]
    Image.fromarray(np.uint8(127.5 + 127.5 * np.stack(waves, -1))).save(path)
