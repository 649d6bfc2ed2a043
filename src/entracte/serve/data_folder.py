"""The folder in which the service keeps everything: jobs, keys, videos, the webhook secret."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from entracte.errors import EntracteError

ID = re.compile(r"video_[0-9a-f]{32}")

# Of folders that we make: their owner's alone.
PRIVATE = 0o700

DATABASE, SECRET, LOCK = "entracte.db", "webhook-secret", "lock"

# What a folder may hold without a database and still be taken: traces of a first start that was
# killed, a secret brought along, and what file systems keep at their root.
TAKEN = frozenset({DATABASE, SECRET, LOCK, "lost+found"})

# So many names of foreign files are shown.
SHOWN = 3


class DataFolderError(EntracteError):
    """The data folder cannot be used."""


class DataFolder:
    """Paths within a folder, and what may be done there.

    Every video has a folder of its own, named by its id; names come from us, never from a client.
    Nothing is made until `prepare`, and the mode of a folder that exists is never changed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.videos = self.root / "videos"

    def prepare(self) -> None:
        """Make the folder if it is missing; the caller makes its database.

        Raises DataFolderError where the system refuses, and for a folder with files that are not a
        service's.
        """
        with self._errors():
            with suppress(FileExistsError):
                self.root.mkdir(PRIVATE, parents=True)
            self._require_ours()

    def require(self) -> None:
        """Raise DataFolderError unless a service keeps its data here. Makes nothing."""
        with self._errors():
            if not self.database.is_file():
                raise DataFolderError(
                    f"{self.root} is not a service's data folder: it has no {DATABASE}. "
                    "Name the right one with `data_folder`; `entracte serve` makes one",
                    settings=("data_folder",),
                )
            self._require_ours()

    def make_videos(self) -> None:
        """Make the folder of all videos if it is missing; raises DataFolderError."""
        with self._errors(), suppress(FileExistsError):
            self.videos.mkdir(PRIVATE)

    @property
    def database(self) -> Path:
        return self.root / DATABASE

    @property
    def webhook_secret(self) -> Path:
        return self.root / SECRET

    def of_video(self, video_id: str) -> Path:
        """The folder of a video; ValueError for what is not an id."""
        if not ID.fullmatch(video_id):
            raise ValueError("not the id of a video")
        return self.videos / video_id

    def video(self, video_id: str) -> Path:
        return self.of_video(video_id) / "video.mp4"

    def image(self, video_id: str, number: int) -> Path:
        """A conditioning image as it was taken in, from 0."""
        return self.of_video(video_id) / f"image-{number}.png"

    def make_room(self, video_id: str) -> None:
        """Make a video's folder, without what an attempt that was killed left in it.

        Raises DataFolderError.
        """
        folder = self.of_video(video_id)
        with self._errors():
            folder.mkdir(PRIVATE, exist_ok=True)
            _remove_parts(folder)

    def remove(self, video_id: str) -> None:
        """Remove all files of a video, if there are any; raises DataFolderError if some stay."""
        with self._errors(), suppress(FileNotFoundError):
            shutil.rmtree(self.of_video(video_id))

    def sweep(self, keep: set[str]) -> int:
        """Remove the folders of videos that are not to be kept, and files that a kill left
        unfinished in the others. Returns how many folders.

        What does not bear a video's name is left alone.
        """
        removed = 0
        with self._errors():
            for folder in self.videos.iterdir():
                if not ID.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
                    continue
                if folder.name in keep:
                    _remove_parts(folder)
                else:
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one server; raises DataFolderError where another one has it.

        The system frees the lock when a process dies, however it dies.
        """
        with self._errors():
            descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataFolderError(
                    f"another server uses {self.root}; stop it, or give `data_folder`",
                    settings=("data_folder",),
                ) from None
            yield
        finally:
            os.close(descriptor)

    def _require_ours(self) -> None:
        """A database without content is one that was just made, so that it knows no video."""
        if self.database.is_file() and self.database.stat().st_size > 0:
            return
        others = sorted({each.name for each in self.root.iterdir()} - TAKEN)
        if others == [self.videos.name] and not any(self.videos.iterdir()):
            return
        if others:
            names = ", ".join(others[:SHOWN])
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            raise DataFolderError(
                f"{self.root} is not ours to use: it holds {names}{more}, and no {DATABASE} with "
                "content. Give `data_folder` a new or an empty folder; if the database was lost, "
                "put it back, or move the videos elsewhere",
                settings=("data_folder",),
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The system's errors as ours."""
        try:
            yield
        except OSError as error:
            words = error.strerror or os.strerror(error.errno or errno.EIO)
            raise DataFolderError(f"cannot use the folder {self.root}: {words}") from error


def _remove_parts(folder: Path) -> None:
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
