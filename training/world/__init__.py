"""A small world of clips made by code: coloured objects that move and sound on painted grounds.

Scenes are data, drawn by seed. `render` turns them into video and sound on any device, and
`captions` says in English what they show.
"""

from training.world.captions import captions, vocabulary
from training.world.motion import events
from training.world.picture import objects_mask, picture
from training.world.render import FRAME_RATE, render
from training.world.scenes import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    FINISHES,
    MOTIONS,
    OBJECTS,
    SIZES,
    Scenes,
    sample_scenes,
)
from training.world.sound import SAMPLE_RATE, sound

__all__ = [
    "BACKGROUNDS",
    "CAMERAS",
    "COLOURS",
    "FINISHES",
    "FRAME_RATE",
    "MOTIONS",
    "OBJECTS",
    "SAMPLE_RATE",
    "SIZES",
    "Scenes",
    "captions",
    "events",
    "objects_mask",
    "picture",
    "render",
    "sample_scenes",
    "sound",
    "vocabulary",
]
