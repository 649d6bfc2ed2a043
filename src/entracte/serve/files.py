"""The files of videos: in the data folder, or in a store of objects that machines share.

A store's files are worked on as copies in the data folder, which are kept for a while: whoever
watches a video asks for it in parts.
"""

import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from entracte.errors import RequestError, WriteError
from entracte.files import write_atomically

from .data_folder import ID, PRIVATE, DataFolder, DataFolderError

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

SCHEMES = ("s3", "gs", "az")

# How long a request to the store is tried.
RETRY_SECONDS = 20

# How long a server keeps a copy.
COPY_SECONDS = 3600.0


class Files:
    """Those of the data folder. far: whether their originals are elsewhere, so that most calls
    take a while.
    """

    far = False

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder

    def keep(self, video_id: str, name: str) -> None:
        """Keep a file that was written to a video's folder, whole or not at all.

        Raises DataFolderError.
        """

    def find(self, video_id: str, name: str) -> Path | None:
        """A file of a video, to be read now; None if there is none. Raises DataFolderError."""
        path = self.folder.of_video(video_id) / name
        return path if path.is_file() else None

    def link(self, video_id: str, name: str, seconds: int) -> str | None:  # noqa: ARG002
        """A URL by which anybody can read a file for so long; None if there are no such URLs."""
        return None

    def remove(self, video_id: str) -> None:
        """Remove all files of a video; raises DataFolderError if some stay."""
        self.folder.remove(video_id)

    def sweep(self, keep: set[str], older_than_s: float) -> int:
        """Remove the files of all other videos, if they are that old; returns of how many.

        Raises DataFolderError.
        """
        return self.folder.sweep(keep, older_than_s)

    def sweep_copies(self) -> None:
        """Remove this machine's copies that nobody has needed lately; raises DataFolderError."""


class StoredFiles(Files):
    """Those of a store of objects, as `<id>/<name>` below its URL."""

    far = True

    def __init__(self, folder: DataFolder, store: "S3Store | GCSStore | AzureStore") -> None:
        super().__init__(folder)
        self._store = store

    def keep(self, video_id: str, name: str) -> None:
        import obstore

        with _errors():
            obstore.put(self._store, f"{video_id}/{name}", self.folder.of_video(video_id) / name)

    def find(self, video_id: str, name: str) -> Path | None:
        import obstore

        path = self.folder.of_video(video_id) / name
        if path.is_file():
            return path
        with _errors():
            try:
                found = obstore.get(self._store, f"{video_id}/{name}")
            except FileNotFoundError:
                return None
            path.parent.mkdir(PRIVATE, exist_ok=True)
            with write_atomically(path) as part, part.open("wb") as file:
                for chunk in found.stream():
                    file.write(chunk)
        return path

    def link(self, video_id: str, name: str, seconds: int) -> str | None:
        import obstore

        with _errors():
            path, lifetime = f"{video_id}/{name}", timedelta(seconds=seconds)
            return obstore.sign(self._store, "GET", path, lifetime)

    def remove(self, video_id: str) -> None:
        import obstore

        super().remove(video_id)
        with _errors():
            for batch in obstore.list(self._store, prefix=f"{video_id}/"):
                obstore.delete(self._store, [each["path"] for each in batch])

    def sweep(self, keep: set[str], older_than_s: float) -> int:
        import obstore

        removed: set[str] = set()
        now = time.time()
        with _errors():
            for batch in obstore.list(self._store):
                old = []
                for each in batch:
                    video_id = each["path"].partition("/")[0]
                    age = now - each["last_modified"].timestamp()
                    if ID.fullmatch(video_id) and video_id not in keep and age > older_than_s:
                        old.append(each["path"])
                        removed.add(video_id)
                if old:
                    obstore.delete(self._store, old)
        return len(removed)

    def sweep_copies(self) -> None:
        with _errors():
            self.folder.sweep(set(), COPY_SECONDS)


def open_files(folder: DataFolder, url: str | None) -> Files:
    """The files at a URL; None: those of the data folder.

    Raises RequestError for a URL of another kind, or one whose store cannot be configured.
    """
    if url is None:
        return Files(folder)
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path != "/":
        folder.videos = Path(unquote(parts.path))
        return Files(folder)
    if parts.scheme not in SCHEMES:
        raise _bad("must be file:///folder, s3://bucket/prefix, gs://… or az://…")
    if importlib.util.find_spec("obstore") is None:
        raise _bad("needs obstore: pip install 'entracte[fleet]'")
    import obstore.exceptions
    from obstore.store import AzureStore, GCSStore, S3Store

    more: Any = {
        "client_options": {
            "connect_timeout": "5s",
            "timeout": "120s",
            # Which obstore reads itself only where it is given no options.
            "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
        },
        "retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
    }
    store: S3Store | GCSStore | AzureStore
    try:
        if parts.scheme == "s3":
            store = S3Store.from_url(url, **more)
        elif parts.scheme == "gs":
            store = GCSStore.from_url(url, **more)
        else:
            store = AzureStore.from_url(url, **more)
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise _bad(f"cannot be opened: {error}") from None
    return StoredFiles(folder, store)


def _bad(words: str) -> RequestError:
    return RequestError(f"`storage` {words}", settings=("storage",))


@contextmanager
def _errors() -> Iterator[None]:
    """Turn a store's failures into DataFolderError."""
    import obstore.exceptions

    try:
        yield
    except (obstore.exceptions.BaseError, WriteError, OSError) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataFolderError(f"the store of videos failed: {words}") from error
