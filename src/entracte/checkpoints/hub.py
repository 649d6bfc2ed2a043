"""Models on the Hugging Face hub: which files of a repository are needed, and fetching them."""

import re
from collections.abc import Sequence
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from entracte.errors import CheckpointError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

# The text encoder that the published checkpoints were trained with; they do not contain it.
GEMMA_REPOSITORY = "google/gemma-3-12b-it-qat-q4_0-unquantized"
SUFFIX = ".safetensors"
GEMMA_FILES = ("*.json", "*.safetensors", "*.model")

DIFFUSERS_FOLDERS = (
    "transformer",
    "connectors",
    "vae",
    "audio_vae",
    "vocoder",
    "text_encoder",
    "tokenizer",
    "latent_upsampler",
)


def is_repository(model: str) -> bool:
    """Whether a name could be a hub repository's, `owner/name`."""
    return REPOSITORY.fullmatch(model) is not None


def fetch_model(repository: str, distilled: bool) -> Path:
    """Download what a pipeline needs of a repository, and return its folder in the hub's cache.

    distilled: the distilled checkpoint is wanted, rather than the base one and its LoRA.
    Honours HF_HOME and HF_HUB_OFFLINE. Raises CheckpointError where files cannot be had.
    """
    try:
        files = HfApi().list_repo_files(repository)
    except HfHubHTTPError as error:
        raise _refusal(repository, error) from None
    except (OfflineModeIsEnabled, HTTPError):
        return _fetch(repository, None)  # what the cache holds
    return _fetch(repository, needed_files(files, distilled))


def fetch_gemma() -> Path:
    """Download the text encoder, and return its folder in the hub's cache."""
    return _fetch(GEMMA_REPOSITORY, list(GEMMA_FILES))


def needed_files(files: Sequence[str], distilled: bool) -> list[str]:
    """Which of a repository's files a pipeline needs, by their published names.

    Of several versions of one file (`…-1.0`, `…-1.1`) the last by name is taken.
    """
    if "model_index.json" in files:
        return ["model_index.json", *(f for f in files if f.split("/")[0] in DIFFUSERS_FOLDERS)]
    stems = sorted(f.removesuffix(SUFFIX) for f in files if "/" not in f and f.endswith(SUFFIX))
    patterns = [r".*spatial-upscaler-x2(-[\d.]+)?"]
    if distilled:
        patterns += [r".*-distilled(-[\d.]+)?"]
    else:
        patterns += [r".*-dev(-[\d.]+)?", r".*-distilled-lora-\d+(-[\d.]+)?"]
    chosen = []
    for pattern in patterns:
        chosen += [stem + SUFFIX for stem in stems if re.fullmatch(pattern, stem)][-1:]
    return chosen


def _fetch(repository: str, patterns: list[str] | None) -> Path:
    try:
        return Path(
            snapshot_download(
                repository, allow_patterns=patterns, local_files_only=patterns is None
            )
        )
    except (LocalEntryNotFoundError, HTTPError) as error:
        raise _refusal(repository, error) from None


def _refusal(repository: str, error: Exception) -> CheckpointError:
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{repository} is gated: accept its terms on the hub, then log in with `hf auth login`"
        )
    if isinstance(error, LocalEntryNotFoundError):
        return CheckpointError(
            f"{repository} is not in the hub's cache, and the hub cannot be reached; download it "
            "first, or give a local folder"
        )
    if isinstance(error, RepositoryNotFoundError):
        return CheckpointError(f"{repository} is neither a folder here nor a repository on the hub")
    return CheckpointError(f"{repository} cannot be fetched from the hub: {error}")
