"""Guidance from the scales in settings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from entracte.recipes import Guidance
from entracte.versions import ASSUMED, DEFAULTS

SCALES = (
    "video_cfg_guidance_scale",
    "audio_cfg_guidance_scale",
    "video_stg_guidance_scale",
    "audio_stg_guidance_scale",
    "a2v_guidance_scale",
    "v2a_guidance_scale",
    "video_rescale_scale",
    "audio_rescale_scale",
)
BLOCKS = ("video_stg_blocks", "audio_stg_blocks")


def guidance_from(given: Mapping[str, Any]) -> dict[str, Guidance]:
    """A request's `video_guidance` and `audio_guidance`; what is None or missing is the default."""
    defaults = DEFAULTS[ASSUMED]
    streams = (("video", "a2v", defaults.video_guidance), ("audio", "v2a", defaults.audio_guidance))
    found = {}
    for stream, modality, default in streams:
        blocks = given.get(f"{stream}_stg_blocks")
        scales: dict[str, Any] = {
            "cfg": given.get(f"{stream}_cfg_guidance_scale"),
            "stg": given.get(f"{stream}_stg_guidance_scale"),
            "stg_blocks": None if blocks is None else tuple(blocks),
            "modality": given.get(f"{modality}_guidance_scale"),
            "rescale": given.get(f"{stream}_rescale_scale"),
        }
        said = {name: value for name, value in scales.items() if value is not None}
        found[f"{stream}_guidance"] = replace(default, **said)
    return found


def scales_of(video: Guidance, audio: Guidance) -> dict[str, float]:
    """The inverse, without blocks."""
    return {
        "video_cfg_guidance_scale": video.cfg,
        "audio_cfg_guidance_scale": audio.cfg,
        "video_stg_guidance_scale": video.stg,
        "audio_stg_guidance_scale": audio.stg,
        "a2v_guidance_scale": video.modality,
        "v2a_guidance_scale": audio.modality,
        "video_rescale_scale": video.rescale,
        "audio_rescale_scale": audio.rescale,
    }
