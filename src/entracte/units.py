"""Bytes and seconds as people read them."""

KIB, MIB, GIB = 2**10, 2**20, 2**30
KB, MB, GB = 10**3, 10**6, 10**9


def size(nbytes: float, digits: int = 1) -> str:
    """A number of bytes, in decimal units: `38.0 GB`."""
    for unit, of in (("GB", GB), ("MB", MB), ("kB", KB)):
        if nbytes >= of:
            return f"{nbytes / of:,.{digits}f} {unit}"
    return f"{nbytes:,.0f} bytes"


def duration(seconds: float) -> str:
    """A time: `9.60 s`, `140 ms`."""
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1e3:,.0f} ms"
