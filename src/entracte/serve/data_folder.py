"""The data folder of the service: jobs, keys, videos, the webhook secret."""

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from entracte.errors import EntracteError

ID = re.compile(r"video_[0-9a-f]{32}")

# Mode of new folders: for their owner only.
PRIVATE = 0o700

DATABASE, SECRET, LOCK = "entracte.db", "webhook-secret", "lock"

# What a folder without a database may contain: leftovers of a first start that was killed, a secret
# copied in advance, and what file systems keep at their root.
TAKEN = frozenset({DATABASE, SECRET, LOCK, "lost+found"})

# How many names of foreign files are shown.
SHOWN = 3


class DataFolderError(EntracteError):
    """The data folder cannot be used."""


def image_name(number: int) -> str:
    return f"image-{number}.png"


class DataFolder:
    """Paths within a folder, and operations on them.

    Every video has a folder named by its id; names never come from clients. Nothing is created
    before `prepare`, and the mode of an existing folder is never changed. elsewhere: the URL of its
    database, if that is not in it.
    """

    def __init__(self, root: Path, elsewhere: str | None = None) -> None:
        self.root = root.expanduser().absolute()
        self.place: Path | str = elsewhere or self.database
        self.videos = self.root / "videos"

    def prepare(self) -> None:
        """Create the folder if it is missing; the caller creates its database.

        Raises DataFolderError if the system refuses, and for a folder with foreign files.
        """
        with self._errors():
            with suppress(FileExistsError):
                self.root.mkdir(PRIVATE, parents=True)
            self._require_ours()

    def require(self) -> None:
        """Raise DataFolderError unless a service keeps its data here. Creates nothing."""
        with self._errors():
            if self.place == self.database and not self.database.is_file():
                raise DataFolderError(
                    f"{self.root} is not a service's data folder: it has no {DATABASE}. "
                    "Name the right one with `data_folder`; `entracte serve` makes one",
                    settings=("data_folder",),
                )
            self._require_ours()

    def make_videos(self) -> None:
        """Create the folder of all videos if it is missing; raises DataFolderError."""
        with self._errors(), suppress(FileExistsError):
            self.videos.mkdir(PRIVATE)

    @property
    def database(self) -> Path:
        return self.root / DATABASE

    @property
    def webhook_secret(self) -> Path:
        return self.root / SECRET

    def of_video(self, video_id: str) -> Path:
        """The folder of a video; raises ValueError for anything but an id."""
        if not ID.fullmatch(video_id):
            raise ValueError("not the id of a video")
        return self.videos / video_id

    def video(self, video_id: str) -> Path:
        return self.of_video(video_id) / "video.mp4"

    def image(self, video_id: str, number: int) -> Path:
        """The path of a conditioning image, numbered from 0."""
        return self.of_video(video_id) / image_name(number)

    def make_room(self, video_id: str) -> None:
        """Create a video's folder, and remove what a killed attempt left in it.

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

    def sweep(self, keep: set[str], older_than_s: float = 0.0) -> int:
        """Remove the folders of all other videos, and unfinished files in the rest. Returns the
        number of folders.

        Anything not named like a video is left alone, and what changed in the last `older_than_s`:
        another process may be writing it.
        """
        removed = 0
        until = time.time() - older_than_s
        with self._errors():
            for folder in self.videos.iterdir():
                if not ID.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
                    continue
                if older_than_s and _changed_at(folder) > until:
                    continue
                if folder.name in keep:
                    _remove_parts(folder)
                    continue
                with suppress(FileNotFoundError):  # which another process removes, too
                    shutil.rmtree(folder)
                    removed += 1
        return removed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one server; raises DataFolderError if another one has it.

        The system releases the lock when the process dies, for whatever reason.
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
        """A database without content is new, so it cannot know any video."""
        if self.database.is_file() and self.database.stat().st_size > 0:
            return
        there = self.root.iterdir() if self.root.is_dir() else ()
        others = sorted({each.name for each in there} - TAKEN)
        if others == [self.videos.name] and (
            self.place != self.database or not any(self.videos.iterdir())
        ):
            return
        if others:
            names = ", ".join(others[:SHOWN])
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            raise DataFolderError(
                f"{self.root} is not a data folder: it holds {names}{more}, and no {DATABASE} with "
                "content. Give `data_folder` a new or an empty folder; if the database was lost, "
                "put it back, or move the videos elsewhere",
                settings=("data_folder",),
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the system's errors into DataFolderError."""
        try:
            yield
        except OSError as error:
            words = error.strerror or os.strerror(error.errno or errno.EIO)
            raise DataFolderError(f"cannot use the folder {self.root}: {words}") from error


def _changed_at(folder: Path) -> float:
    """When any of its files last changed; 0 if another process has removed it meanwhile."""
    with suppress(FileNotFoundError):
        return max(each.stat().st_mtime for each in (folder, *folder.iterdir()))
    return 0.0


def _remove_parts(folder: Path) -> None:
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)
