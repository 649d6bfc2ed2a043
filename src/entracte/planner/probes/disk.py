"""How fast a folder's files can be read from where they lie."""

import mmap
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .refused import NotMeasured, TooLittle

MOST_BYTES = 512 * 2**20
LEAST_BYTES = 64 * 2**20  # less is over too soon to be timed
MOST_SECONDS = 0.8
CHUNK = 16 * 2**20
PLACES = 100  # where it is looked whether a file is still in memory
LITTLE_HELD = 0.1


@dataclass(frozen=True, slots=True)
class DiskRate:
    """bytes_per_second: as the model's files are read. cached: whether they may have come from
    memory, and the disk may be slower.
    """

    bytes_per_second: float
    cached: bool


def disk_rate(folder: Path) -> DiskRate:
    """Read the beginnings of a folder's largest files, at most for about a second.

    Raises NotMeasured where the files cannot be read, TooLittle where they are too small.
    """
    try:
        files = _largest_files(folder)
        if sum(size for _, size in files) < LEAST_BYTES:
            raise TooLittle(f"the folder's files have less than {LEAST_BYTES >> 20} MiB")
        return _read(files)
    except OSError as error:
        raise NotMeasured(f"the folder's files cannot be read: {error.strerror}") from error


def weight_bytes(folder: Path) -> int:
    """What a folder's weight files have together. Raises NotMeasured."""
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
    """The largest files, with how much is to be read of each."""
    found = sorted(((path.stat().st_size, path) for path in _files(folder)), reverse=True)
    left = MOST_BYTES
    files = []
    for size, path in found:
        if min(size, left) > 0:
            files.append((path, min(size, left)))
            left -= min(size, left)
    return files


def _read(files: Sequence[tuple[Path, int]]) -> DiskRate:
    target = torch.empty(CHUNK, dtype=torch.uint8).fill_(0)
    done, seconds, cached = 0, 0.0, False
    for path, size in files:
        with path.open("rb") as file:
            cached = not _forget(file.fileno(), size) or cached
            start = time.perf_counter()
            # As the weights are read: through a map.
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as pages:
                for count in _copy_chunks(pages, target):
                    done += count
                    if seconds + time.perf_counter() - start > MOST_SECONDS:
                        break
            seconds += time.perf_counter() - start
        if seconds > MOST_SECONDS:
            break
    return DiskRate(done / seconds, cached)


def _copy_chunks(pages: mmap.mmap, target: torch.Tensor) -> Iterator[int]:
    """Copy the map chunk by chunk; yields the bytes of each."""
    for start in range(0, len(pages), CHUNK):
        count = min(CHUNK, len(pages) - start)
        # The view is gone before the map is closed.
        target[:count].copy_(torch.frombuffer(pages, dtype=torch.uint8, count=count, offset=start))
        yield count


def _forget(file: int, size: int) -> bool:
    """Have the system drop what it holds of the file's beginning; whether it surely did, but for
    a little.
    """
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
            return False  # this file system does not tell
    return held <= len(places) * LITTLE_HELD
