"""The trained demonstration model, as the package carries it: `training/ship.py` packs it."""

import tarfile
from pathlib import Path

from entracte.errors import MediaError

ARCHIVE = Path(__file__).with_name("trained.tar.xz")


def write_trained_model(folder: Path) -> list[Path]:
    """Write all files of the trained demonstration model into a folder, created if missing.

    Returns the files' paths. Raises MediaError if the system refuses to write.
    """
    written = []
    try:
        with tarfile.open(ARCHIVE, "r:xz") as archive:
            for member in archive:
                content = archive.extractfile(member)
                assert content is not None  # there are only files in it
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
                written.append(path)
    except OSError as error:
        raise MediaError(f"cannot write the model to {folder}: {error.strerror}") from error
    return sorted(written)
