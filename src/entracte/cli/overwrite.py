"""Existing files are overwritten only if the user says so."""

import sys
from collections.abc import Container, Iterator
from itertools import count
from pathlib import Path

from entracte.errors import MediaError

from .terminal import clean


def require_absent(path: Path, force: bool, may_ask: bool = True) -> None:
    """Raise MediaError for a file that exists, unless `force` is set or the user agrees.

    In a folder, frames and sound count. may_ask: whether to ask on a terminal.
    """
    if force or not _exists(path):
        return
    what = f"{path} has frames" if path.is_dir() else f"{path} exists"
    if not may_ask or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise MediaError(f"{what} already; give --force to overwrite it")
    print(clean(f"{what} already. Overwrite it? [y/N] "), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise MediaError(f"{path} was left as it is")


def free_name(path: Path, taken: Container[Path] = ()) -> Path:
    """`output.mp4`, or the first of `output-2.mp4`, `output-3.mp4` … that does not exist.

    taken: names that others will have.
    """
    return next(each for each in _names(path) if each not in taken and not each.exists())


def _names(path: Path) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_stem(f"{path.stem}-{number}")


def _exists(path: Path) -> bool:
    if path.is_dir():
        return (path / "audio.wav").exists() or any(path.glob("frame_[0-9]*.png"))
    return path.exists()
