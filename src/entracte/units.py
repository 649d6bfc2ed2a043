"""Bytes and seconds in human-readable form."""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType

KIB, MIB, GIB = 2**10, 2**20, 2**30
KB, MB, GB = 10**3, 10**6, 10**9

UNITS: Mapping[str, int] = MappingProxyType(
    {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    | {f"{prefix}iB": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)}
    | {f"{prefix}B": 10 ** (3 * power) for power, prefix in enumerate("KMGT", start=1)}
    | {"B": 1}
)

SIZE = r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?(?:i?B)?)\s*"
MOST_BYTES = 2**62


def parse_bytes(given: float | str) -> int | None:
    """`24GiB`, `24G` (the same), `24GB` (powers of ten) or bytes to bytes; else None."""
    # Python does not write integers of thousands of digits.
    if not isinstance(given, str) and not abs(given) <= MOST_BYTES:
        return None
    match = re.fullmatch(SIZE, given if isinstance(given, str) else f"{given}"[:60])
    nbytes = float(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else math.inf
    return None if nbytes > MOST_BYTES else int(nbytes)


def size(nbytes: float, digits: int = 1) -> str:
    """A number of bytes in decimal units: `38.0 GB`, `512 bytes`."""
    for unit, of in (("GB", GB), ("MB", MB), ("kB", KB)):
        if nbytes >= of:
            return f"{nbytes / of:,.{digits}f} {unit}"
    return f"{nbytes:,.0f} bytes"


def mebibytes(nbytes: float) -> str:
    """A number of bytes as limits are set: `50 MiB`, `50 bytes`."""
    return f"{nbytes / MIB:g} MiB" if nbytes >= MIB / 10 else f"{nbytes:,.0f} bytes"


def duration(seconds: float) -> str:
    """A time: `0.42 ms`, `140 ms`, `9.60 s`, `13 min 20 s`, `8 h 20 min`."""
    if seconds < 1:
        ms = seconds * 1e3
        return f"{ms:,.2f} ms" if 0 < ms < 10 else f"{ms:,.0f} ms"
    if seconds < 120:
        return f"{seconds:,.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
