"""Carries out a conversion: writes under temporary names, reads headers back, and renames."""

import shutil
from collections.abc import Callable
from pathlib import Path

from entracte.errors import CheckpointError, WriteError
from entracte.files import require_writable, write_atomically, write_folder_atomically
from entracte.units import size

from ..safetensors_file import SafetensorsFile
from ..write_safetensors import write_safetensors
from .plan import Conversion, NewFile


def check_room(conversion: Conversion) -> None:
    """Raise WriteError if the output exists, cannot be made, or finds no room on its disk."""
    out = conversion.out
    if out.exists():
        raise WriteError(f"{out} exists already; nothing is overwritten")
    require_writable(out)
    free = shutil.disk_usage(out.parent).free
    if conversion.nbytes > free:
        raise WriteError(
            f"{out} takes {size(conversion.nbytes)}, and its disk has {size(free)} left"
        )


def write_conversion(
    conversion: Conversion, written: Callable[[int], None] = lambda _: None
) -> list[Path]:
    """Write it, in memory of the largest weight; returns the new files.

    written: called with how many bytes were written more.
    Nothing is left under the output's name unless all of it is there. Raises WriteError, and
    CheckpointError if an input is damaged or changed while it is read.
    """
    check_room(conversion)
    out = conversion.out
    if not conversion.to_folder:
        with write_atomically(out) as part:
            _write(conversion.files[0], part, written)
            _check_absent(out)
        return [out]
    with write_folder_atomically(out) as folder:
        for each in conversion.files:
            _write(each, folder / each.name, written)
        for path in conversion.copied:
            shutil.copyfile(path, folder / path.name)
        _check_absent(out)
    names = [*(new.name for new in conversion.files), *(path.name for path in conversion.copied)]
    return [out / name for name in names]


def _check_absent(out: Path) -> None:
    if out.exists():
        raise WriteError(f"{out} was made meanwhile by another program; nothing is overwritten")


def _write(new: NewFile, path: Path, written: Callable[[int], None]) -> None:
    write_safetensors(path, new.tensors, new.metadata, written)
    found = {key: info.format for key, info in SafetensorsFile(path).tensors.items()}
    if found != new.formats:
        key = next(
            key for key in {**new.formats, **found} if found.get(key) != new.formats.get(key)
        )
        raise CheckpointError(f"{new.name}: {key} was not written as it was to be")
