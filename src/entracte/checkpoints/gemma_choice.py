"""Which Gemma folder belongs to a checkpoint: the one whose states its projection takes."""

from pathlib import Path

from entracte.errors import CheckpointError

from .folder import Folder
from .gemma_folder import open_gemma
from .hub import GEMMA_REPOSITORY
from .sources import ComponentSource

PROJECTIONS = (
    "text_embedding_projection.aggregate_embed.weight",
    "text_embedding_projection.video_aggregate_embed.weight",
    "text_embedding_projection.audio_aggregate_embed.weight",
)


def check_text_encoder(text: ComponentSource, connectors: ComponentSource | None) -> None:
    """Raise CheckpointError unless the connectors take the states of this text encoder's layers."""
    given = text.config["text_config"]
    width, layers = given["hidden_size"], given["num_hidden_layers"]
    for name in PROJECTIONS:
        located = None if connectors is None else connectors.tensors.get(name)
        if located is None:
            continue  # building the component reports what is missing
        wanted = located.info.shape[-1] if located.info.shape else 0
        if wanted != width * (layers + 1):
            folder = next(iter(text.tensors.values())).file.path.parent
            raise CheckpointError(
                f"{folder} is not the text encoder of {located.file.path}: it has {layers} layers "
                f"of width {width}, so {width * (layers + 1)} numbers a token, and the checkpoint "
                f"takes {wanted}. LTX-2.3 takes {GEMMA_REPOSITORY}"
            )


def choose_gemma(found: Folder, connectors: ComponentSource | None) -> Path:
    """The Gemma folder that fits; of several, the one with the official name.

    Raises CheckpointError if none fits, or several that cannot be distinguished.
    """
    fitting, reasons = [], []
    for folder in found.gemmas:
        try:
            check_text_encoder(open_gemma(folder), connectors)
        except CheckpointError as error:
            reasons.append(error)
        else:
            fitting.append(folder)
    if not fitting:
        raise CheckpointError("\n".join(map(str, reasons)))
    official = [each for each in fitting if each.name == GEMMA_REPOSITORY.split("/")[1]]
    taken = official or fitting
    names = [each.name for each in found.gemmas]
    if len(taken) > 1:
        raise CheckpointError(
            f"{found.path} holds several text encoders that fit ({', '.join(names)}); name one "
            "with `gemma_root`",
            settings=("gemma_root",),
        )
    if len(names) > 1:
        why = "the one that fits" if len(fitting) == 1 else "the official one"
        found.note_choice(taken[0].name, why, names)
    return taken[0]
