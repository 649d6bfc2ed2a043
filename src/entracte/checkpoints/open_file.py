"""A file that stays open, so that later reads are from the very same file."""

import os
import stat
import weakref
from pathlib import Path

from entracte.errors import CheckpointChanged, CheckpointError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class OpenFile:
    """A regular file, read at any place, by any thread.

    It is read with system calls rather than mapped: truncating a mapped file kills the process
    (SIGBUS), and rewriting one changes weights in use. Its inode, size and
    time of change are compared around every read.

    Raises CheckpointError if it cannot be opened or is not a regular file; never blocks on a pipe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Without O_NONBLOCK, opening a named pipe waits for a writer.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise CheckpointError(f"cannot read {path}: {_reason(error)}") from None
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise CheckpointError(f"{path} is {kind}, not a file")
        self.size = status.st_size
        self._identity = _identity(status)

    def read_into(self, memory: memoryview, start: int) -> None:
        """Fill memory with the bytes from `start` on.

        Raises CheckpointChanged if the file is not what it was when it was opened, and
        CheckpointError if the system cannot read it.
        """
        self._check(os.fstat(self._descriptor))
        done = 0
        while done < len(memory):
            try:
                count = os.preadv(self._descriptor, [memory[done:]], start + done)
            except OSError as error:
                raise CheckpointError(f"cannot read {self.path}: {_reason(error)}") from None
            if count == 0:
                raise self._changed()
            done += count
        self._check(os.fstat(self._descriptor))

    def read(self, start: int, nbytes: int) -> bytes:
        """Bytes from `start` on; raises what `read_into` raises."""
        found = bytearray(nbytes)
        self.read_into(memoryview(found), start)
        return bytes(found)

    def check_unchanged(self) -> None:
        """Raise CheckpointChanged if another file has taken the path, or this one was changed.

        A file that was merely removed can still be read, and passes.
        """
        self._check(os.fstat(self._descriptor))
        try:
            self._check(self.path.stat())
        except OSError:
            return

    def _check(self, status: os.stat_result) -> None:
        if _identity(status) != self._identity:
            raise self._changed()

    def _changed(self) -> CheckpointChanged:
        return CheckpointChanged(
            f"{self.path} was changed or replaced after it was opened: open it again"
        )


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
