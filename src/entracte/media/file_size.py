"""How large a file of sound or video may be."""

from pathlib import Path

from entracte.errors import MediaError
from entracte.units import MIB, mebibytes

MAX_BYTES = 500 * MIB


def check_size(what: str, path: Path) -> None:
    """Raise MediaError if a file is missing or over MAX_BYTES. what: it is, in words."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise MediaError(f"cannot read {what} {path}: {error.strerror}") from None
    if size > MAX_BYTES:
        raise MediaError(
            f"{what} {path} has {mebibytes(size)}; at most {mebibytes(MAX_BYTES)} are read"
        )
