"""What may be said in short to an engine: a prompt for a request, a mode for a residency."""

from collections.abc import Mapping
from typing import Any

from entracte.errors import RequestError
from entracte.request import Request
from entracte.residency import AUTO, Auto, Mode, Residency
from entracte.units import parse_bytes


def as_request(given: object, options: Mapping[str, Any]) -> Request:
    """A request, or the one that a prompt and options make; raises RequestError."""
    if isinstance(given, str):
        return Request(given, **options)
    if not isinstance(given, Request):
        raise RequestError("generate takes a prompt, or a Request, such as Request('…')")
    if options:
        names = ", ".join(options)
        raise RequestError(f"{names}: part of a request; give a prompt, or another Request")
    return given


def as_residency(
    residency: Residency | None,
    mode: Mode | Auto | None,
    device_memory: int | str | None,
    host_memory: int | str | None,
) -> Residency | None:
    """A residency, or one with a mode and budgets; raises RequestError and ResidencyError."""
    if mode is None and device_memory is None and host_memory is None:
        return residency
    if residency is not None:
        raise RequestError("mode and memory are parts of a residency; give one or the other")
    device = _bytes("device_memory", device_memory)
    host = _bytes("host_memory", host_memory)
    return Residency(mode or AUTO, device_memory=device, host_memory=host)


def _bytes(name: str, given: int | str | None) -> int | None:
    if given is None:
        return None
    nbytes = parse_bytes(given)
    if nbytes is None:
        raise RequestError(f"{name}: must be bytes, or a size such as 24GiB, not {given!r:.40}")
    return nbytes
