"""The folder in which the service keeps everything: jobs, keys, videos, the webhook secret."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entracte.errors import EntracteError

ID = re.compile(r"video_[0-9a-f]{32}")


class DataFolderError(EntracteError):
    """The data folder cannot be used."""


class DataFolder:
    """Paths within a folder that only its owner may read.

    Every video has a folder of its own, named by its id; names come from us, never from a client.
    """

    def __init__(self, root: Path) -> None:
        """Make the folder where it is missing; raises DataFolderError where that is refused."""
        self.root = root.expanduser().absolute()
        self.videos = self.root / "videos"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o700)
            self.videos.mkdir(exist_ok=True)
        except OSError as error:
            raise DataFolderError(f"cannot use the folder {root}: {error.strerror}") from None

    @property
    def database(self) -> Path:
        return self.root / "entracte.db"

    @property
    def webhook_secret(self) -> Path:
        return self.root / "webhook-secret"

    def of_video(self, video_id: str) -> Path:
        """The folder of a video; ValueError for what is no id."""
        if not ID.fullmatch(video_id):
            raise ValueError("not the id of a video")
        return self.videos / video_id

    def video(self, video_id: str) -> Path:
        return self.of_video(video_id) / "video.mp4"

    def image(self, video_id: str, number: int) -> Path:
        """A conditioning image as it was taken in, from 0."""
        return self.of_video(video_id) / f"image-{number}.png"

    def make_room(self, video_id: str) -> None:
        """Make a video's folder, without what an attempt that was killed left in it."""
        folder = self.of_video(video_id)
        folder.mkdir(exist_ok=True)
        for part in folder.glob(".*.part"):
            part.unlink()

    def remove(self, video_id: str) -> None:
        """Remove all files of a video; nothing happens where there are none."""
        shutil.rmtree(self.of_video(video_id), ignore_errors=True)

    def sweep(self, known: set[str]) -> int:
        """Remove the folders of videos that nobody knows; returns how many."""
        unknown = [each for each in self.videos.iterdir() if each.name not in known]
        for folder in unknown:
            shutil.rmtree(folder, ignore_errors=True)
        return len(unknown)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one server; raises DataFolderError where another one has it.

        The system frees the lock when a process dies, however it dies.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataFolderError(
                    f"another server uses {self.root}; stop it, or give --data-folder"
                ) from None
            yield
        finally:
            os.close(descriptor)
