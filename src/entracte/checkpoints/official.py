"""The names of the official files: which of a repository are needed, and which is the newest."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

MODEL_INDEX = "model_index.json"
SUFFIX = ".safetensors"
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

TRANSFORMER_CONFIG = "transformer/config.json"

UPSAMPLER = r".*spatial-upscaler-x2"
BASE = r".*-dev"
DISTILLED = r".*-distilled"
DISTILLED_LORA = r".*-distilled-lora-\d+"
VERSION = r"(?:-(\d+(?:\.\d+)+))?"

GEMMA_SUFFIXES = (".json", ".safetensors", ".model")


def needed_files(files: Sequence[str], distilled: bool) -> list[str]:
    """Which of a repository's files a pipeline needs.

    distilled: with the distilled checkpoint instead of the base one and its LoRA.
    """
    if MODEL_INDEX in files:
        return [MODEL_INDEX, *(f for f in files if f.split("/")[0] in DIFFUSERS_FOLDERS)]
    patterns = [UPSAMPLER, DISTILLED] if distilled else [UPSAMPLER, BASE, DISTILLED_LORA]
    top = [file for file in files if "/" not in file and file.endswith(SUFFIX)]
    chosen = []
    for pattern in patterns:
        fitting = [file for file in top if re.fullmatch(pattern + VERSION, Path(file).stem)]
        if fitting:
            chosen.append(newest(fitting))
    return chosen


def needed_of_gemma(files: Sequence[str]) -> list[str]:
    """Which of the files of Gemma's repository are needed."""
    return [file for file in files if "/" not in file and file.endswith(GEMMA_SUFFIXES)]


def newest(names: Iterable[str]) -> str:
    """The name with the highest version; of several, the last in the alphabet."""
    return max(names, key=lambda name: (version_of(name), name))


def header_of(files: Sequence[str], distilled: bool) -> str | None:
    """Which of a repository's files says what its transformer is; None if it has no LTX model."""
    if MODEL_INDEX in files:
        return TRANSFORMER_CONFIG if TRANSFORMER_CONFIG in files else None
    kind = re.compile((DISTILLED if distilled else BASE) + VERSION)
    needed = needed_files(files, distilled)
    return next((file for file in needed if kind.fullmatch(Path(file).stem)), None)


def newest_of_kind(names: Sequence[str], distilled: bool) -> list[str]:
    """Which checkpoints a pipeline takes, by their names: several if it cannot tell them apart.

    Those called distilled, or the others; all if there are none of the kind.
    """
    fitting = [name for name in names if ("distilled" in name) == distilled] or list(names)
    best = max(map(version_of, fitting), default=())
    return [name for name in fitting if version_of(name) == best]


def version_of(name: str) -> tuple[int, ...]:
    """The version at the end of a file's name: (1, 1) of `…-lora-384-1.1`; (1, 0) without one."""
    match = re.search(VERSION + "$", name.removesuffix(SUFFIX))
    version = match[1] if match else None
    return tuple(map(int, version.split("."))) if version else (1, 0)


def has_all(files: Sequence[str], distilled: bool) -> bool:
    """Whether files of the published names are all that a pipeline needs."""
    return len(needed_files(files, distilled)) == (2 if distilled else 3)
