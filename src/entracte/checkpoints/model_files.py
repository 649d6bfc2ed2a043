"""From what a user names to a model's files: a folder, a hub repository, or explicit paths."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from entracte.errors import CheckpointError

from . import hub
from .diffusers_layout import is_diffusers_folder, open_diffusers
from .gemma_folder import is_gemma, open_gemma
from .lora import is_lora
from .published import is_checkpoint, is_upsampler, open_checkpoint, open_upsampler
from .safetensors_file import SafetensorsFile
from .sources import ComponentSource, ModelSource


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


@dataclass(slots=True)
class _Found:
    """What a folder holds, by kind."""

    checkpoints: list[SafetensorsFile] = field(default_factory=list)
    upsamplers: list[SafetensorsFile] = field(default_factory=list)
    loras: list[SafetensorsFile] = field(default_factory=list)
    gemma: Path | None = None


def open_model(model: str | None, paths: ModelPaths, distilled: bool) -> ModelSource:
    """Find a model's files and read their headers; no weight is read.

    model: a folder or a hub repository; None where `paths` says everything.
    distilled: prefer a distilled checkpoint where there are both.
    Raises CheckpointError, saying what is missing and how to give it.
    """
    if model is None and not paths.checkpoint:
        raise CheckpointError(
            "no model is named: give --model (a folder, or a hub repository such as "
            "Lightricks/LTX-2.3), or --checkpoint-path and --gemma-root. To try without weights: "
            "entracte demo-model DIR"
        )
    folder = None if model is None else _folder(model, distilled)
    if folder is not None and is_diffusers_folder(folder) and not paths.checkpoint:
        version, components = "2.3", open_diffusers(folder)
        tokenizer, found = folder / "tokenizer", _scan(folder)
    else:
        found = _Found() if folder is None else _scan(folder)
        version, components = open_checkpoint(_checkpoint_files(paths, found, folder, distilled))
        gemma_root = paths.gemma_root or found.gemma
        if gemma_root is None and folder is not None and not Path(str(model)).exists():
            gemma_root = hub.fetch_gemma()
        if gemma_root is None:
            raise CheckpointError(
                "the text encoder is missing: give --gemma-root, the folder of "
                f"{hub.GEMMA_REPOSITORY}, or put it into the model's folder"
            )
        tokenizer = gemma_root
    if paths.gemma_root is not None:
        tokenizer = paths.gemma_root
    if "text_encoder" not in components or paths.gemma_root is not None:
        components["text_encoder"] = open_gemma(tokenizer)
    upsampler = _upsampler(paths, found)
    if upsampler is not None:
        components["upsampler"] = upsampler
    return ModelSource(version, components, tokenizer, _distilled_lora(paths, found))


def _folder(model: str, distilled: bool) -> Path:
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(
            f"{model} is a file; give it as --checkpoint-path, or name its folder"
        )
    if hub.is_repository(model):
        return hub.fetch_model(model, distilled)
    raise CheckpointError(f"model folder {model} does not exist")


def _scan(folder: Path) -> _Found:
    found = _Found()
    for path in sorted(folder.glob("*.safetensors")):
        file = SafetensorsFile(path)
        if is_checkpoint(file):
            found.checkpoints.append(file)
        elif is_upsampler(file):
            found.upsamplers.append(file)
        elif is_lora(file):
            found.loras.append(file)
    for config in sorted(folder.glob("*/config.json")):
        if is_gemma(config.parent) and (config.parent / "tokenizer.json").is_file():
            found.gemma = config.parent
    return found


def _checkpoint_files(
    paths: ModelPaths, found: _Found, folder: Path | None, distilled: bool
) -> list[SafetensorsFile]:
    if paths.checkpoint:
        files = []
        for path in paths.checkpoint:
            files += _scan(path).checkpoints if path.is_dir() else [SafetensorsFile(path)]
        if not files:
            raise CheckpointError(f"folder {paths.checkpoint[0]} holds no LTX checkpoint")
        return files
    if not found.checkpoints:
        raise CheckpointError(f"{folder} holds no LTX checkpoint; give --checkpoint-path")
    return _one_model(found.checkpoints, distilled)


def _one_model(files: Sequence[SafetensorsFile], distilled: bool) -> list[SafetensorsFile]:
    """Of the files of a folder, those of one model: split files belong together, whole ones not."""
    with_transformer = [f for f in files if any("transformer_blocks." in key for key in f.tensors)]
    if len(with_transformer) <= 1:
        return list(files)
    named = [f for f in with_transformer if ("distilled" in f.path.name) == distilled]
    if len(named) != 1:
        names = ", ".join(f.path.name for f in with_transformer)
        raise CheckpointError(
            f"the folder holds several checkpoints ({names}); name one with --checkpoint-path"
        )
    return [named[0], *(f for f in files if f not in with_transformer)]


def _upsampler(paths: ModelPaths, found: _Found) -> ComponentSource | None:
    if paths.upsampler is not None:
        return open_upsampler(SafetensorsFile(paths.upsampler))
    fitting = []
    for file in found.upsamplers:
        try:
            fitting.append(open_upsampler(file))
        except CheckpointError:
            continue  # another kind of upsampler lies beside ours
    return fitting[-1] if fitting else None


def _distilled_lora(paths: ModelPaths, found: _Found) -> tuple[SafetensorsFile, float] | None:
    if paths.distilled_lora is not None:
        path, strength = paths.distilled_lora
        return SafetensorsFile(path), strength
    named = [file for file in found.loras if "distilled" in file.path.name]
    return (named[-1], 1.0) if named else None
