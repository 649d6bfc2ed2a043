"""How fast a folder's files can be read."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .refused import NotMeasured, TooLittle

MOST_BYTES = 512 * 2**20
LEAST_BYTES = 64 * 2**20  # less is too quick to be timed
MOST_SECONDS = 0.8
CHUNK = 16 * 2**20
PLACES = 100  # where to check whether a file is still cached
LITTLE_HELD = 0.1


@dataclass(frozen=True, slots=True)
class DiskRate:
    """bytes_per_second: as the model's files are read. cached: whether they may have come from
    memory, and the disk may be slower.
    """

    bytes_per_second: float
    cached: bool


def disk_rate(folder: Path) -> DiskRate:
    """Read the beginnings of a folder's largest files, for about a second at most.

    Raises NotMeasured if the files cannot be read, TooLittle if they are too small.
    """
    try:
        files = _largest_files(folder)
        if sum(size for _, size in files) < LEAST_BYTES:
            raise TooLittle(f"the folder's files have less than {LEAST_BYTES >> 20} MiB")
        return _read(files)
    except OSError as error:
        raise NotMeasured(f"the folder's files cannot be read: {error.strerror}") from error


def weight_bytes(folder: Path) -> int:
    """Total bytes of a folder's weight files. Raises NotMeasured."""
    try:
        return sum(path.stat().st_size for path in _files(folder) if path.suffix == ".safetensors")
    except OSError as error:
        raise NotMeasured(f"the folder cannot be read: {error.strerror}") from error


def _files(folder: Path) -> list[Path]:
    """The files in a folder, and in those within it, where the text encoder may be. No deeper: a
    model may lie in a folder with much else.
    """
    return [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]


def _largest_files(folder: Path) -> list[tuple[Path, int]]:
    """The largest files, with how much of each to read."""
    found = sorted(((path.stat().st_size, path) for path in _files(folder)), reverse=True)
    left = MOST_BYTES
    files = []
    for size, path in found:
        if min(size, left) > 0:
            files.append((path, min(size, left)))
            left -= min(size, left)
    return files


def _read(files: Sequence[tuple[Path, int]]) -> DiskRate:
    target = memoryview(bytearray(CHUNK))
    done, seconds, cached = 0, 0.0, False
    for path, size in files:
        with path.open("rb") as file:
            cached = not _forget(file.fileno(), size) or cached
            start = time.perf_counter()
            for count in _read_chunks(file.fileno(), size, target):
                done += count
                if seconds + time.perf_counter() - start > MOST_SECONDS:
                    break
            seconds += time.perf_counter() - start
        if seconds > MOST_SECONDS:
            break
    return DiskRate(done / seconds, cached)


def _read_chunks(file: int, size: int, target: memoryview) -> Iterator[int]:
    """Read the file's beginning chunk by chunk, as weights are read; yields the bytes of each."""
    start = 0
    while start < size:
        count = os.preadv(file, [target[: size - start]], start)
        if count == 0:
            return  # it has become shorter
        start += count
        yield count


def _forget(file: int, size: int) -> bool:
    """Make the system drop the cached beginning of the file; returns whether it did."""
    if sys.platform != "linux":
        return False
    os.posix_fadvise(file, 0, size, os.POSIX_FADV_DONTNEED)
    held, places = 0, range(0, size, size // PLACES + 1)
    for place in places:
        try:
            held += os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT)
        except BlockingIOError:
            continue  # it would have to be read
        except OSError:
            return False  # this file system does not report it
    return held <= len(places) * LITTLE_HELD
