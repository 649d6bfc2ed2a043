"""Models with random weights as files, to measure what reading them takes."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from entracte.checkpoints.sources import ModelSource, TensorFile
from entracte.checkpoints.write_safetensors import (
    NewTensors,
    one_tensor,
    said_of,
    with_layers,
    write_safetensors,
)
from entracte.errors import MediaError

from .demo import write_tokenizer
from .random_model import RandomSize, random_model

CHECKPOINT = "ltx-2.3-random-dev.safetensors"
DISTILLED_LORA = "ltx-2.3-random-distilled-lora-384.safetensors"
UPSAMPLER = "ltx-2.3-random-spatial-upscaler-x2.safetensors"
GEMMA = "gemma"


def write_random_model(size: RandomSize, folder: Path, blocks: int | None = None) -> list[Path]:
    """Write a random model into a folder, created if missing, in the published files.

    At full size they take 79 GB, and with 12 of the transformer's 48 blocks 45; in memory never
    more than the largest tensor is. Returns the files' paths. Raises MediaError if the system
    refuses to write.
    """
    gemma = folder / GEMMA
    source = random_model(size, gemma, blocks)
    files = _files(source)
    text = source.components["text_encoder"].config
    try:
        (gemma / "config.json").write_text(json.dumps({**text, "model_type": "gemma3"}))
        for name, file in files.items():
            write_tensors(file, folder / name)
        write_tokenizer(gemma)
    except OSError as error:
        raise MediaError(f"cannot write the model to {folder}: {error.strerror}") from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _files(source: ModelSource) -> dict[str, TensorFile]:
    assert source.distilled_lora is not None  # a random model has one
    components = {name: _file_of(source, name) for name in source.components}
    return {
        CHECKPOINT: components["transformer"],
        UPSAMPLER: components["upsampler"],
        f"{GEMMA}/model.safetensors": components["text_encoder"],
        DISTILLED_LORA: source.distilled_lora[0],
    }


def _file_of(source: ModelSource, component: str) -> TensorFile:
    return next(iter(source.components[component].tensors.values())).file


def write_tensors(file: TensorFile, path: Path) -> None:
    """Write tensors as a safetensors file: quantised ones as they are stored, and others in
    bfloat16. Raises OSError.
    """
    layers = {
        key.removesuffix(".weight"): said
        for key, info in file.tensors.items()
        if info.format is not None and (said := said_of(info.format)) is not None
    }
    config = {"config": json.dumps(dict(file.config))} if file.config else {}
    metadata = with_layers({**file.metadata, **config}, layers)
    write_safetensors(path, _stored(file), metadata)


def _stored(file: TensorFile) -> Iterator[NewTensors]:
    """A file's tensors, with those of quantised weights one by one."""
    for key, info in file.tensors.items():
        if info.format is None:
            yield one_tensor(key, (torch.bfloat16, info.shape), partial(file.read, key))
        for end, part in info.parts.items():
            read = partial(file.read_stored, key, end)
            yield one_tensor(key + end, (part.dtype, part.shape), read)
