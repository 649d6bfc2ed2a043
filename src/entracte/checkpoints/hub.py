"""Models on the Hugging Face hub: in its cache, or fetched from it."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import disable_progress_bars

from entracte.errors import CheckpointError

logger = logging.getLogger(__name__)

# The text encoder that the published checkpoints were trained with; they do not contain it.
GEMMA_REPOSITORY = "google/gemma-3-12b-it-qat-q4_0-unquantized"

# Timeout of the first request to the hub, in seconds; it is not retried.
PATIENCE = 10.0

# Which of a repository's files are needed, by their paths in it.
Needed = Callable[[Sequence[str]], Sequence[str]]


class HubRefusal(CheckpointError):
    """The hub does not answer, or not with what was asked for."""


def find(repository: str, needed: Needed, is_whole: Callable[[Path], bool]) -> Path:
    """The folder of a repository, from the hub's cache if complete there, else downloaded.

    A complete cache is used without contacting the hub. Respects HF_HOME and HF_HUB_OFFLINE.
    Raises CheckpointError if files are unavailable.
    """
    cached = snapshots(repository)
    if cached and _is_main(cached[0]) and is_whole(cached[0]):
        return cached[0]
    try:
        files = list_files(repository)
        wanted = needed(files)
        if not wanted:
            raise no_checkpoint(repository, files)
        return fetch(repository, wanted)
    except HubRefusal as refusal:
        if not cached or isinstance(refusal.__cause__, RepositoryNotFoundError):
            raise
        logger.warning("%s; taking what is in the hub's cache", refusal)
    return next(filter(is_whole, cached), cached[0])


def snapshots(repository: str) -> list[Path]:
    """The folders of a repository in the cache: that of `main` first, then the newest.

    Raises CheckpointError for a name that no repository can have.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise CheckpointError(
            f"{repository} is neither a folder here nor a name that a repository can have"
        ) from None
    root = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    folders = [folder for folder in root.glob("snapshots/*") if folder.is_dir()]
    return sorted(folders, key=lambda each: (_is_main(each), each.stat().st_mtime))[::-1]


def list_files(repository: str) -> list[str]:
    """Paths of the files of a repository on the hub; raises HubRefusal."""
    with _asking(repository):
        info = HfApi().model_info(repository, timeout=PATIENCE)
    return [each.rfilename for each in info.siblings or []]


def fetch(repository: str, files: Sequence[str]) -> Path:
    """Download files into the cache; returns their folder.

    Raises HubRefusal, and CheckpointError if the cache cannot be written.
    """
    with _asking(repository):
        return Path(snapshot_download(repository, allow_patterns=list(map(_escape, files))))


def read_metadata(repository: str, file: str) -> Mapping[str, str]:
    """The metadata in the header of a safetensors file on the hub, of which no more is downloaded.

    Raises HubRefusal, and CheckpointError if it has no such header.
    """
    with _asking(repository):
        try:
            header = HfApi().parse_safetensors_file_metadata(repository, file, timeout=PATIENCE)
        except SafetensorsParsingError as error:
            raise CheckpointError(f"{repository}: {file} is not a safetensors file") from error
    return header.metadata


def no_checkpoint(repository: str, files: Sequence[str]) -> CheckpointError:
    """The refusal of a repository with other files than a model's."""
    listed = ", ".join(files[:5])
    return CheckpointError(
        f"{repository} holds no LTX checkpoint under the published names; its files are "
        f"{listed or 'none'}{', …' if len(files) > 5 else ''}"
    )


def hide_progress() -> None:
    """Show no progress bars of downloads in this process."""
    disable_progress_bars()


def _is_main(snapshot: Path) -> bool:
    try:
        return (snapshot.parent.parent / "refs" / "main").read_text().strip() == snapshot.name
    except (OSError, UnicodeDecodeError):
        return False


def _escape(name: str) -> str:
    """A pattern that matches only this name."""
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


@contextmanager
def _asking(repository: str) -> Iterator[None]:
    """Raise HubRefusal, in words, for what keeps the hub from answering."""
    try:
        yield
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError) as error:
        raise HubRefusal(_refusal_words(repository, error)) from error
    except OSError as error:
        raise CheckpointError(
            f"{repository} cannot be kept in the hub's cache: {error.strerror or error}"
        ) from None


def _refusal_words(repository: str, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{repository} is gated: accept its terms at {constants.ENDPOINT}/{repository}, then "
            "log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repository} is neither a folder here nor a repository on the hub (or it is private: "
            "log in with `hf auth login`)"
        )
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return f"the hub answered {error.response.status_code} for {repository}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repository} is not whole in the hub's cache, and HF_HUB_OFFLINE is set"
    return f"{repository} is not whole in the hub's cache, and the hub cannot be reached"
