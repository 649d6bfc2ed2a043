"""What an mp4 says of how it was made: its title is the prompt, its comment the settings in JSON.

Files that the video was made from are named, without their folders.
"""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av

from entracte.binding import BoundRequest
from entracte.errors import MediaError
from entracte.request_fields import RequestFields, values_from
from entracte.version import __version__

NO_TAGS: Mapping[str, str] = MappingProxyType({})

SOFTWARE = f"entracte {__version__}"

# What IPTC, and so C2PA, calls media that a trained model made.
MADE_BY_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

# A comment is a page of text; a longer one is something else's.
MOST_CHARACTERS = 1_000_000


def tags_of(request: BoundRequest) -> Mapping[str, str]:
    """The tags of a video that a request made, by name."""
    return {"title": request.prompt, "comment": json.dumps(settings_of(request))}


def settings_of(request: BoundRequest) -> dict[str, Any]:
    """By the names of the command's settings, those that make the same video again."""
    values = request.model_dump(include=set(RequestFields.model_fields))
    values |= {
        "height": request.output_height or request.height,
        "width": request.output_width or request.width,
    }
    values |= values_from(request.video_guidance, request.audio_guidance)
    given: dict[str, list[Any]] = {}
    for each in request.conditions:
        said = each.model_dump(mode="json", exclude={"path", "data", "mask"}, exclude_none=True)
        given.setdefault(each.field, []).append({"name": each.path.name} | said)
    for lora in request.loras:
        said = {"name": lora.name or lora.path.name, "strength": lora.strength}
        given.setdefault("loras", []).append(said)
    made_by = {"software": SOFTWARE, "digital_source_type": MADE_BY_A_MODEL}
    shown = {name: _plain(value) for name, value in values.items() if value is not None}
    return made_by | shown | given


def read_settings_of(video: Path) -> dict[str, Any]:
    """What `settings_of` wrote into a video.

    Raises MediaError for a file that cannot be read, or says nothing of how it was made.
    """
    try:
        with av.open(str(video)) as container:
            comment = container.metadata.get("comment", "")
    except Exception as error:  # damaged files raise whatever PyAV trips over
        raise MediaError(f"cannot read {video}: {error}") from None
    try:
        found = json.loads(comment[:MOST_CHARACTERS])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not str(found.get("software")).startswith("entracte "):
        raise MediaError(f"{video} does not say how it was made, or was not made by entracte")
    return found


def _plain(value: Any) -> Any:
    """As JSON can hold it, so that the same is read again."""
    return str(value) if isinstance(value, Fraction) else value
