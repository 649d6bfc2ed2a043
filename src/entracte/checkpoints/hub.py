"""Models on the Hugging Face hub: in its cache, or fetched from it."""

import logging
from collections.abc import Callable, Iterator, Sequence
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


def find(repository: str, needed: Needed, is_whole: Callable[[Path], bool]) -> Path:
    """The folder of a repository, from the hub's cache if complete there, else downloaded.

    A complete cache is used without contacting the hub. Respects HF_HOME and HF_HUB_OFFLINE.
    Raises CheckpointError if files are unavailable.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise CheckpointError(
            f"{repository} is neither a folder here nor a name that a repository can have"
        ) from None
    cached = list(_snapshots(repository))
    if cached and _is_main(cached[0]) and is_whole(cached[0]):
        return cached[0]
    try:
        return _fetch(repository, needed)
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HTTPError) as error:
        refusal = _refusal(repository, error)
    except OSError as error:
        raise CheckpointError(
            f"{repository} cannot be kept in the hub's cache: {error.strerror or error}"
        ) from None
    if not cached or isinstance(refusal.__cause__, RepositoryNotFoundError):
        raise refusal
    logger.warning("%s; taking what is in the hub's cache", refusal)
    return next(filter(is_whole, cached), cached[0])


def hide_progress() -> None:
    """Show no progress bars of downloads in this process."""
    disable_progress_bars()


def _snapshots(repository: str) -> Iterator[Path]:
    """The folders of a repository in the cache: that of `main` first, then the newest."""
    root = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
    folders = [folder for folder in root.glob("snapshots/*") if folder.is_dir()]
    yield from sorted(folders, key=lambda each: (_is_main(each), each.stat().st_mtime))[::-1]


def _is_main(snapshot: Path) -> bool:
    try:
        return (snapshot.parent.parent / "refs" / "main").read_text().strip() == snapshot.name
    except (OSError, UnicodeDecodeError):
        return False


def _fetch(repository: str, needed: Needed) -> Path:
    info = HfApi().model_info(repository, timeout=PATIENCE)
    files = [each.rfilename for each in info.siblings or []]
    wanted = needed(files)
    if not wanted:
        listed = ", ".join(files[:5])
        raise CheckpointError(
            f"{repository} holds no LTX checkpoint under the published names; its files are "
            f"{listed or 'none'}{', …' if len(files) > 5 else ''}"
        )
    return Path(snapshot_download(repository, allow_patterns=list(map(_escape, wanted))))


def _escape(name: str) -> str:
    """A pattern that matches only this name."""
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")


def _refusal(repository: str, error: Exception) -> CheckpointError:
    if isinstance(error, GatedRepoError):
        words = (
            f"{repository} is gated: accept its terms at {constants.ENDPOINT}/{repository}, then "
            "log in with `hf auth login`"
        )
    elif isinstance(error, RepositoryNotFoundError):
        words = (
            f"{repository} is neither a folder here nor a repository on the hub (or it is private: "
            "log in with `hf auth login`)"
        )
    elif isinstance(error, HfHubHTTPError) and error.response is not None:
        words = f"the hub answered {error.response.status_code} for {repository}"
    elif isinstance(error, OfflineModeIsEnabled):
        words = f"{repository} is not whole in the hub's cache, and HF_HUB_OFFLINE is set"
    else:
        words = f"{repository} is not whole in the hub's cache, and the hub cannot be reached"
    refusal = CheckpointError(words)
    refusal.__cause__ = error
    return refusal
