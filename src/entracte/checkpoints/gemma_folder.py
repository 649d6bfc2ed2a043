"""The Gemma folder: the text encoder's shards, and the tokenizer beside them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entracte.errors import CheckpointError
from entracte.models import gemma

from .gemma_gguf import EMBEDDING, GemmaGguf
from .json_file import first_problem, read_json
from .named import expand, is_folder
from .parts import require_readable
from .safetensors_file import SafetensorsFile
from .shards import INDEX_SUFFIX, SUFFIX, shards
from .sources import ComponentSource, Located

STEM = "model"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
BESIDE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

GemmaSize = Annotated[int, Field(gt=0, lt=2**24)]


class TextConfig(BaseModel):
    """Bounds of the sizes of the model; missing values are transformers' defaults."""

    model_config = ConfigDict(strict=True)

    hidden_size: GemmaSize = 1
    intermediate_size: GemmaSize = 1
    num_hidden_layers: Annotated[int, Field(gt=0, le=1000)] | None = None
    num_attention_heads: GemmaSize = 1
    num_key_value_heads: GemmaSize = 1
    head_dim: GemmaSize = 1
    vocab_size: GemmaSize = 1
    sliding_window: GemmaSize = 1
    layer_types: Annotated[list[str], Field(max_length=1000)] | None = None


class GemmaConfig(BaseModel):
    """A `config.json` of Gemma 3."""

    model_config = ConfigDict(strict=True)

    text_config: TextConfig = TextConfig()


def is_gemma(root: Path) -> bool:
    """Whether a folder is a Gemma folder, by its config."""
    try:
        return read_json(root / CONFIG).get("model_type") == "gemma3"
    except CheckpointError:
        return False


def open_gemma(root: Path, tokenizer: Path | None = None) -> ComponentSource:
    """The language half of a Gemma folder; no weight is read.

    tokenizer: the folder of the tokenizer, if it is another one.
    Raises CheckpointError if the folder, its config, its weights or its tokenizer is missing, or if
    the config contradicts the weights.
    """
    root = expand(root)
    if not is_folder(root) and root.exists():
        raise CheckpointError(
            f"{root} is a file; the text encoder is a folder with {CONFIG}, {TOKENIZER} and "
            "safetensors files or a GGUF file"
        )
    if not root.exists():
        raise CheckpointError(f"Gemma folder {root} does not exist")
    values = _read_config(root / CONFIG)
    _check_tokenizer(tokenizer or root)
    gguf = _gguf(root)
    tensors = _of_safetensors(root) if gguf is None else _of_gguf(gguf, values)
    if not tensors:
        raise CheckpointError(f"Gemma folder {root} holds no language model weights")
    # Checked before use, because that many layers would be built.
    _check_layers(root, values.get("text_config", {}), tensors)
    try:
        config = gemma.full_config(values)
    except CheckpointError as error:
        raise CheckpointError(f"{root / CONFIG}: {error}") from None
    _check_layers(root, config["text_config"], tensors)
    return ComponentSource("text_encoder", config, tensors)


def _of_safetensors(root: Path) -> dict[str, Located]:
    tensors: dict[str, Located] = {}
    for file in map(SafetensorsFile, shards(root, STEM)):
        require_readable(file)
        for key in file.tensors:
            name = gemma.file_to_module(key)
            if name is not None:
                tensors[name] = Located(file, key)
    return tensors


def _gguf(root: Path) -> Path | None:
    """The folder's GGUF file, if it has no safetensors files. Those of vision halves do not count.

    Raises CheckpointError for several.
    """
    if any(root.glob(f"[!.]*{SUFFIX}")) or any(root.glob(f"[!.]*{INDEX_SUFFIX}")):
        return None
    found = sorted(each for each in root.glob("[!.]*.gguf") if not each.name.startswith("mmproj"))
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise CheckpointError(f"Gemma folder {root} holds several GGUF files ({names}); leave one")
    return next(iter(found), None)


def _of_gguf(path: Path, values: dict[str, Any]) -> dict[str, Located]:
    """The tensors of a GGUF file, in which llama.cpp leaves out the rows of no token.

    values: the config, whose vocabulary becomes as long as it is there.
    """
    file = GemmaGguf(path)
    rows = file.tensors[EMBEDDING].shape[0] if EMBEDDING in file.tensors else 0
    text = values.get("text_config", {})
    if 0 < rows < text.get("vocab_size", 0):
        values["text_config"] = {**text, "vocab_size": rows}
    return {name: Located(file, name) for name in file.tensors}


def _read_config(path: Path) -> dict[str, Any]:
    """Gemma's config as it is in the file, within bounds."""
    values = read_json(path)
    if values.get("model_type") != "gemma3":
        raise CheckpointError(
            f"{path.parent} holds a {values.get('model_type')!r} model; LTX-2.3 needs gemma3"
        )
    if "quantization_config" in values:
        raise CheckpointError(
            f"{path.parent} holds a quantised model, which is not supported yet; take the bfloat16 "
            "files instead"
        )
    try:
        GemmaConfig.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {first_problem(error)}") from None
    return values


def _check_tokenizer(folder: Path) -> None:
    """Raise CheckpointError unless the tokenizer's files are there, and JSON."""
    if not (folder / TOKENIZER).exists():
        raise CheckpointError(f"Gemma folder {folder} has no {TOKENIZER}")
    for name in (TOKENIZER, *BESIDE_TOKENIZER):
        if (folder / name).exists():
            read_json(folder / name)


def _check_layers(root: Path, config: dict[str, Any], tensors: dict[str, Located]) -> None:
    """Raise CheckpointError unless the weights have as many layers as the config declares."""
    found = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    declared = config.get("num_hidden_layers")
    if declared is not None and declared != len(found):
        raise CheckpointError(
            f"{root / CONFIG} says num_hidden_layers={declared}; the weights beside it have "
            f"{len(found)} layers"
        )
