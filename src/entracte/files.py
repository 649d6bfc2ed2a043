"""Writes files whole or not at all."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entracte.errors import WriteError


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move it there if the block succeeds.

    The file is then synced to disk. No temporary file is left, whether or not the block succeeds.
    Raises WriteError if the system refuses to write (no folder, no permission, no space).
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        mode = ordinary_mode(part)
        yield part
        if part.is_file():
            part.chmod(mode)  # some libraries make files that only their owner may read
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def write_folder_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, and move it there if the block succeeds.

    Its files are then synced to disk. No temporary folder is left, whether or not the block
    succeeds. Raises WriteError if the system refuses to write, or if `path` is a folder with files.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.mkdir()
        yield part
        for file in (*part.iterdir(), part):
            _sync(file)
        part.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def ordinary_mode(path: Path) -> int:
    """The permissions of a file that is made at a path where none is, as the umask has them.

    They are seen by making one: asking for the umask would change it for all threads.
    """
    path.touch(exist_ok=False)
    try:
        return stat.S_IMODE(path.stat().st_mode)
    finally:
        path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_writable(path: Path) -> None:
    """Raise WriteError unless a file can be made at `path`: its folder exists and lets us."""
    folder = path.parent
    if not folder.is_dir():
        raise WriteError(f"folder {folder} does not exist; make it first, or write elsewhere")
    if path.is_dir():
        raise WriteError(f"{path} is a folder; name a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"folder {folder} cannot be written to")
