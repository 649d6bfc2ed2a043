"""Standard requests for measurements."""

from collections.abc import Mapping
from types import MappingProxyType

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

PROMPT = "A lighthouse at dusk, waves breaking on the rocks, a foghorn far away"
