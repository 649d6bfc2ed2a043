"""What a model is, from a header alone: for a process that opens no weights. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entracte.errors import CheckpointError
from entracte.versions import DEFAULTS, Defaults

from .diffusers_configs import is_diffusers_folder, require_ltx, transformer_config, translated
from .gguf_header import GgufHeader, is_gguf, read_gguf_header
from .header import Header, read_header
from .json_file import parse_object
from .model_config import is_model_file, model_config
from .named import expand, find_folder, is_folder, require_named
from .official import MODEL_INDEX, TRANSFORMER_CONFIG, header_of, newest_of_kind
from .open_file import OpenFile
from .parts import components_of, full_keys, require_readable
from .shards import shards_of
from .split_folders import weights_in
from .versions import version_name

MAX_LAYERS = 1000

# Prompts that suit a model, a line each, in its folder; at most so many are shown.
EXAMPLE_PROMPTS = "example-prompts.txt"
MAX_EXAMPLES = 6

AnyHeader = Header | GgufHeader


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """version: by its name, as `entracte.versions` has it. layers: blocks of the transformer.
    examples: prompts that come with it.
    """

    version: str
    layers: int
    examples: tuple[str, ...] = ()

    @property
    def defaults(self) -> Defaults:
        return DEFAULTS[self.version]


def read_model_header(
    model: str | None, checkpoint: Sequence[Path], distilled: bool
) -> ModelHeader:
    """Read which version a model is, and how deep, from the file that `open_model` would open.

    A hub repository that is not in the cache is asked for this header alone.
    model, distilled: as for `open_model`. checkpoint: explicit files or folders, which win.
    Raises CheckpointError if there is no such model, or it is of no version that can be run.
    """
    require_named(model, checkpoint)
    if checkpoint:
        return _of_paths(checkpoint, distilled)
    assert model is not None  # see `require_named`
    folder = find_folder(model)
    if folder is None:
        return _of_repository(model, distilled)
    return replace(_of_folder(folder, distilled), examples=example_prompts(folder))


def example_prompts(folder: Path) -> tuple[str, ...]:
    """The prompts of a model's folder; none if it has no such file that can be read."""
    try:
        with (folder / EXAMPLE_PROMPTS).open(encoding="utf-8", errors="replace") as file:
            lines = file.read(100_000).splitlines()
    except OSError:
        return ()
    return tuple(line.strip() for line in lines if line.strip())[:MAX_EXAMPLES]


def _of_paths(paths: Sequence[Path], distilled: bool) -> ModelHeader:
    headers: dict[Path, AnyHeader] = {}
    for path in map(expand, paths):
        chosen = _checkpoint_of(path, distilled) if is_folder(path) else _headers(shards_of(path))
        headers |= {header.path: header for header in chosen}
    return _of_headers(list(headers.values()))


def _of_folder(folder: Path, distilled: bool) -> ModelHeader:
    if is_diffusers_folder(folder):
        require_ltx(folder)
        config = translated((folder / TRANSFORMER_CONFIG).parent, transformer_config)
        return _of_config({}, {"transformer": config}, folder)
    return _of_headers(_checkpoint_of(folder, distilled))


def _of_repository(repository: str, distilled: bool) -> ModelHeader:
    from . import hub  # slow to import

    for snapshot in hub.snapshots(repository):
        files = [each.relative_to(snapshot).as_posix() for each in snapshot.rglob("*.*")]
        if header_of(files, distilled) is not None:
            return _of_folder(snapshot, distilled)
    files = hub.list_files(repository)
    file = header_of(files, distilled)
    if file is None:
        raise hub.no_checkpoint(repository, files)
    if file == TRANSFORMER_CONFIG:
        return _of_folder(hub.fetch(repository, [MODEL_INDEX, file]), distilled)
    where = f"{repository}: {file}"
    metadata = hub.read_metadata(repository, file)
    try:
        config = parse_object(metadata.get("config", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{where}: its config is not JSON: {error}") from None
    return _of_config(metadata, config, where)


def _checkpoint_of(folder: Path, distilled: bool) -> list[AnyHeader]:
    """The headers of a folder's checkpoint, of several that which a pipeline takes."""
    found: dict[str, list[AnyHeader]] = {}
    skipped = []
    seen: set[Path] = set()
    try:
        files = [path for paths in weights_in(folder) for path in paths]
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}: {error.strerror}") from None
    for path in files:
        if path.name.startswith(".") or path in seen:
            continue
        try:
            paths = shards_of(path)
            seen.update(paths)
            headers = _headers(paths)
            keys = (full for header in headers for full in full_keys(header).values())
            if "transformer" in components_of(keys) and any(map(is_model_file, headers)):
                _of_headers(headers)
                found[headers[0].path.name] = headers
        except CheckpointError as error:
            skipped.append(f"\nskipped {error}")
    if not found:
        raise CheckpointError(
            f"{folder} holds no LTX checkpoint; give `checkpoint_path`{''.join(skipped)}",
            settings=("checkpoint_path",),
        )
    # Where the names do not tell several apart, opening the model refuses them.
    return found[newest_of_kind(list(found), distilled)[0]]


def _headers(paths: Sequence[Path]) -> list[AnyHeader]:
    headers = []
    for file in map(OpenFile, paths):
        header: AnyHeader = read_gguf_header(file) if is_gguf(file) else read_header(file)
        require_readable(header)
        headers.append(header)
    return headers


def _of_headers(headers: Sequence[AnyHeader]) -> ModelHeader:
    if not any(map(is_model_file, headers)):
        raise CheckpointError(f"{headers[0].path} is not an LTX checkpoint: it has no LTX config")
    return _checked(*model_config(headers), headers[0].path)


def _of_config(
    metadata: Mapping[str, str], config: Mapping[str, Any], where: object
) -> ModelHeader:
    return _checked(version_name(metadata, config, where), config, where)


def _checked(version: str, config: Mapping[str, Any], where: object) -> ModelHeader:
    transformer = config.get("transformer")
    layers = transformer.get("num_layers") if isinstance(transformer, dict) else None
    if type(layers) is not int or not 0 < layers <= MAX_LAYERS:
        raise CheckpointError(f"{where}: its config has num_layers={layers!r:.40}")
    return ModelHeader(version, layers)
