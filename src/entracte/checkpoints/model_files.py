"""Finds a model's files from a folder, a hub repository, or explicit paths."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from entracte.errors import CheckpointError
from entracte.models.gemma import TokenizerText

from . import hub
from .diffusers_configs import is_diffusers_folder
from .diffusers_layout import open_diffusers
from .folder import Folder, choose_checkpoint, choose_distilled_lora, choose_upsampler, scan
from .gemma4_file import (
    REFUSED,
    Gemma4Source,
    is_gemma4,
    open_gemma4,
    open_gemma4_folder,
    require_same_gemma,
)
from .gemma_choice import check_text_encoder, choose_gemma
from .gemma_folder import open_gemma
from .named import expand, find_folder, is_folder, is_repository, require_named
from .official import has_all, needed_files, needed_of_gemma
from .precision import in_float8
from .published import open_checkpoint, open_upsampler
from .shards import shards_of
from .sources import ComponentSource, ModelSource, Precision
from .weights_file import WeightsFile, open_weights


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """Explicit paths; each wins over what a folder or repository holds.

    checkpoint: the file, or the files, of everything but Gemma and the upsampler; or their folder.
    distilled_lora: the stage-2 LoRA and its strength.
    """

    checkpoint: tuple[Path, ...] = ()
    gemma_root: Path | None = None
    upsampler: Path | None = None
    distilled_lora: tuple[Path, float] | None = None

    @classmethod
    def of(
        cls,
        checkpoint: str | Path | tuple[str | Path, ...] | None,
        gemma_root: str | Path | None,
        upsampler: str | Path | None,
        distilled_lora: str | Path | tuple[str | Path, float] | None,
    ) -> Self:
        """As callers may give them. A LoRA without a strength has 1."""
        given = checkpoint if isinstance(checkpoint, tuple) else (checkpoint,)
        lora = distilled_lora if isinstance(distilled_lora, tuple) else (distilled_lora, 1.0)
        path, strength = lora
        return cls(
            checkpoint=tuple(Path(each) for each in given if each is not None),
            gemma_root=None if gemma_root is None else Path(gemma_root),
            upsampler=None if upsampler is None else Path(upsampler),
            distilled_lora=None if path is None else (Path(path), float(strength)),
        )


def open_model(
    model: str | None, paths: ModelPaths, distilled: bool, precision: Precision = "exact"
) -> ModelSource:
    """Find a model's files and read their headers; no weight is read.

    model: a folder or a hub repository; None if `paths` has everything.
    distilled: prefer a distilled checkpoint if there are both. precision: see `in_float8`.
    Raises CheckpointError, saying what is missing and how to give it.
    """
    require_named(model, paths.checkpoint)
    folder = None if model is None else _folder(model, distilled)
    tokenizer: Path | TokenizerText
    found = None if folder is None else scan(folder)
    if folder is not None and is_diffusers_folder(folder) and not paths.checkpoint:
        version, components = open_diffusers(folder)
        tokenizer = folder / "tokenizer"
        if version.own_gemma:
            _, tokenizer = open_gemma4_folder(folder / "text_encoder", tokenizer)
    else:
        files = checkpoint_files(paths, found, distilled)
        texts = [file for file in files if is_gemma4(file)]
        version, components = open_checkpoint([file for file in files if file not in texts])
        if version.own_gemma:
            text = _own_gemma(paths, found, texts)
            tokenizer = _add_own_gemma(components, text)
        else:
            from_hub = model is not None and is_repository(model)
            tokenizer = paths.gemma_root or _gemma(found, components.get("connectors"), from_hub)
    if paths.gemma_root is not None and not version.own_gemma:
        tokenizer = paths.gemma_root
        components["text_encoder"] = open_gemma(paths.gemma_root)
    if "text_encoder" not in components:
        assert isinstance(tokenizer, Path)  # of a version without a text encoder of its own
        components["text_encoder"] = open_gemma(tokenizer)
    check_text_encoder(components["text_encoder"], components.get("connectors"))
    if paths.upsampler is not None:
        components["upsampler"] = open_upsampler(open_weights(paths.upsampler))
    elif found is not None and (upsampler := choose_upsampler(found)) is not None:
        components["upsampler"] = open_upsampler(upsampler)
    lora = _distilled_lora(paths, found)
    notes = () if found is None else tuple(found.notes)
    source = ModelSource(version, components, tokenizer, lora, notes)
    return in_float8(source) if precision == "fp8" else source


def _folder(model: str, distilled: bool) -> Path:
    found = find_folder(model)
    if found is not None:
        return found

    def is_whole(folder: Path) -> bool:
        if not is_diffusers_folder(folder):
            return has_all([each.name for each in folder.iterdir()], distilled)
        try:
            open_diffusers(folder)
        except CheckpointError:
            return False
        return True

    return hub.find(model, lambda files: needed_files(files, distilled), is_whole)


def checkpoint_files(paths: ModelPaths, found: Folder | None, distilled: bool) -> list[WeightsFile]:
    """The files of a model's checkpoint. found: the model's folder, if none is named in `paths`.

    distilled: as for `open_model`. Raises CheckpointError.
    """
    if not paths.checkpoint:
        assert found is not None  # there is a model's folder or a checkpoint; see `open_model`
        return choose_checkpoint(found, distilled)
    files: dict[Path, WeightsFile] = {}
    for path in map(expand, paths.checkpoint):
        if is_folder(path):
            chosen = choose_checkpoint(scan(path), distilled)
            files |= {file.path: file for file in chosen}
        else:
            files |= {each: open_weights(each) for each in shards_of(path)}
    return list(files.values())


def _gemma(found: Folder | None, connectors: ComponentSource | None, from_hub: bool) -> Path:
    """The text encoder's folder: the one in the model's folder that fits, or the hub's."""
    if found is not None and found.gemmas:
        return choose_gemma(found, connectors)
    if not from_hub:
        raise CheckpointError(
            "the text encoder is missing: give `gemma_root`, the folder of "
            f"{hub.GEMMA_REPOSITORY}, or put it into the model's folder"
            f"{'' if found is None else found.why_not()}",
            settings=("gemma_root",),
        )

    def is_whole(folder: Path) -> bool:
        try:
            open_gemma(folder)
        except CheckpointError:
            return False
        return True

    return hub.find(hub.GEMMA_REPOSITORY, needed_of_gemma, is_whole)


def _own_gemma(paths: ModelPaths, found: Folder | None, given: list[WeightsFile]) -> Gemma4Source:
    """A version's own text encoder: the file that is given, or the one in the model's folder."""
    if paths.gemma_root is not None:
        root = expand(paths.gemma_root)
        given = scan(root).text_encoders if is_folder(root) else [open_weights(root)]
        if not given:
            raise CheckpointError(f"{root} does not hold the text encoder: {REFUSED}")
    elif not given and found is not None:
        given = found.text_encoders
    if len(given) != 1:
        names = ", ".join(file.path.name for file in given)
        what = f"there are several ({names})" if given else "it is missing"
        raise CheckpointError(
            f"the text encoder: {what}; name the file with `gemma_root`. {REFUSED}",
            settings=("gemma_root",),
        )
    return open_gemma4(given[0])


def _add_own_gemma(components: dict[str, ComponentSource], text: Gemma4Source) -> TokenizerText:
    """Add a text encoder and the text projections that come with it to a model's components."""
    transformer = next(iter(components["transformer"].tensors.values()))
    require_same_gemma(transformer.file, text)
    connectors = components["connectors"]
    components["connectors"] = replace(
        connectors, tensors={**connectors.tensors, **text.projections}
    )
    components["text_encoder"] = text.component
    return text.tokenizer


def _distilled_lora(paths: ModelPaths, found: Folder | None) -> tuple[WeightsFile, float] | None:
    if paths.distilled_lora is not None:
        path, strength = paths.distilled_lora
        return open_weights(path), strength
    chosen = None if found is None else choose_distilled_lora(found)
    return None if chosen is None else (chosen, 1.0)
