"""The Gemma folder: the text encoder's shards, and the tokenizer beside them."""

import json
from pathlib import Path

from entracte.errors import CheckpointError
from entracte.models import gemma

from .safetensors_file import SafetensorsFile
from .sources import ComponentSource, Located

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def is_gemma(root: Path) -> bool:
    """Whether a folder is a Gemma folder, by its config."""
    try:
        config = json.loads((root / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "gemma3"


def open_gemma(root: Path, tokenizer: Path | None = None) -> ComponentSource:
    """The language half of a Gemma folder; no weight is read.

    tokenizer: the folder of the tokenizer, where it is another one.
    Raises CheckpointError if the folder, its config, its weights or its tokenizer is missing.
    """
    if not root.is_dir():
        raise CheckpointError(f"Gemma folder {root} does not exist")
    config = gemma.read_config(root)
    tokenizer = tokenizer or root
    if not (tokenizer / "tokenizer.json").is_file():
        raise CheckpointError(f"Gemma folder {tokenizer} has no tokenizer.json")
    tensors = {}
    for file in shards(root):
        for key in file.tensors:
            name = gemma.file_to_module(key)
            if name is not None:
                tensors[name] = Located(file, key)
    if not tensors:
        raise CheckpointError(f"Gemma folder {root} holds no language model weights")
    return ComponentSource("text_encoder", config.to_dict(), tensors)


def shards(root: Path, index_name: str = INDEX, single_name: str = SINGLE) -> list[SafetensorsFile]:
    """The safetensors files of a folder, from its index or its only file."""
    index = root / index_name
    if not index.is_file():
        if not (root / single_name).is_file():
            raise CheckpointError(f"{root} has neither {single_name} nor {index_name}")
        return [SafetensorsFile(root / single_name)]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index} is no index of shards") from None
    return [SafetensorsFile(root / name) for name in names]
