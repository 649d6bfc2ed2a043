"""Names of models: folders and hub repositories. Imports nothing heavy."""

from collections.abc import Sequence
from pathlib import Path

from entracte.errors import CheckpointError


def require_named(model: str | None, checkpoint: Sequence[Path]) -> None:
    """Raise CheckpointError if neither a model nor the files of its checkpoint are given."""
    if model is None and not checkpoint:
        raise CheckpointError(
            "no model is named: give `model` (a folder, or a hub repository such as "
            "Lightricks/LTX-2.3), or `checkpoint_path` and `gemma_root`. To try without weights: "
            "entracte demo-model DIR",
            settings=("model", "checkpoint_path", "gemma_root"),
        )


def is_repository(model: str) -> bool:
    """Whether a name could be a hub repository's, `owner/name`, rather than a folder's."""
    owner, slash, name = model.partition("/")
    if not slash or not name or "/" in name or model.startswith((".", "/", "~")):
        return False
    return not is_folder(Path(owner))


def find_folder(model: str) -> Path | None:
    """The folder that a model's name stands for, None for a name that could be a repository's.

    Raises CheckpointError for everything else.
    """
    path = expand(Path(model))
    if is_folder(path):
        return path
    if path.exists():
        raise CheckpointError(
            f"{model} is a file; give it as `checkpoint_path`, or name its folder",
            settings=("checkpoint_path",),
        )
    if is_repository(model):
        return None
    raise CheckpointError(f"model folder {model} does not exist")


def expand(path: Path) -> Path:
    """A path with `~` replaced by the home folder; raises CheckpointError if there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise CheckpointError(f"{path}: this home folder does not exist") from None


def is_folder(path: Path) -> bool:
    """Whether a folder exists; raises CheckpointError if the system does not say."""
    try:
        return path.is_dir()
    except OSError as error:  # no permission, or too long a name
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
