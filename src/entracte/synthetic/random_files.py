"""Models with random weights as files, to measure what reading them takes."""

import json
import math
from pathlib import Path

import torch

from entracte.checkpoints.sources import ModelSource, TensorFile
from entracte.errors import MediaError
from entracte.units import MIB

from .demo import write_tokenizer
from .random_model import RandomSize, random_model

CHECKPOINT = "ltx-2.3-random-dev.safetensors"
DISTILLED_LORA = "ltx-2.3-random-distilled-lora-384.safetensors"
UPSAMPLER = "ltx-2.3-random-spatial-upscaler-x2.safetensors"
GEMMA = "gemma"

# A header is padded to the alignment of tensors.
ALIGNMENT = 64


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
    """Write tensors in bfloat16, one after the other, as a safetensors file. Raises OSError."""
    metadata = dict(file.metadata)
    if file.config:
        metadata["config"] = json.dumps(dict(file.config))
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for key, info in file.tensors.items():
        end = start + info.nbytes
        header[key] = {"dtype": "BF16", "shape": info.shape, "data_offsets": [start, end]}
        start = end
    words = json.dumps(header).encode()
    words = words.ljust(math.ceil(len(words) / ALIGNMENT) * ALIGNMENT)
    largest = max(info.parameters for info in file.tensors.values())
    memory = torch.empty(largest, dtype=torch.bfloat16)
    with path.open("wb", buffering=MIB) as out:
        out.write(len(words).to_bytes(8, "little"))
        out.write(words)
        for key, info in file.tensors.items():
            tensor = memory[: info.parameters].view(info.shape)
            file.read(key, tensor)
            out.write(memory[: info.parameters].view(torch.uint8).numpy().data)
