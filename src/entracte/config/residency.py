"""The residency from settings."""

from typing import TYPE_CHECKING, Any

from entracte.errors import RequestError
from entracte.imports import quick_imports
from entracte.units import parse_bytes
from entracte.validation import shown_value

from .base import Number, flag_name
from .model import ModelSettings

if TYPE_CHECKING:
    from entracte.residency import Residency


def build_residency(settings: ModelSettings) -> "Residency":
    """The residency that settings describe; raises RequestError and ResidencyError."""
    with quick_imports():
        from entracte.residency import AUTO, MODES, Residency

    return Residency(
        mode=MODES.get(settings.mode, AUTO),
        snapshot_policy=settings.snapshot_policy,
        resident_blocks=settings.resident_blocks,
        merged_blocks=settings.merged_blocks,
        places=parse_places(settings.place or []),
        device_memory=parse_size("device_memory", settings.device_memory),
        host_memory=parse_size("host_memory", settings.host_memory),
        pinned_memory=parse_size("pinned_memory", settings.pinned_memory),
    )


def parse_places(given: list[str]) -> dict[str, Any]:
    """`NAME=PLACE` words to places by component; raises RequestError for a word of another form."""
    places: dict[str, Any] = {}
    for word in given:
        name, equals, place = word.partition("=")
        if not equals or not name or not place:
            raise RequestError(f"--place takes NAME=PLACE, such as text_encoder=disk, not {word!r}")
        if places.setdefault(name, place) != place:
            raise RequestError(f"--place names {name} twice: {places[name]} and {place}")
    return places


def parse_size(name: str, given: Number | None) -> int | None:
    """`24GiB`, `24G` (the same), `24GB` (powers of ten) or bytes to bytes; raises RequestError."""
    if given is None:
        return None
    nbytes = parse_bytes(given)
    if nbytes is None:
        shown = shown_value(given)
        raise RequestError(
            f"{flag_name(name)} takes a size such as 24GiB or 24GB" + (shown and f", not {shown}")
        )
    return nbytes
