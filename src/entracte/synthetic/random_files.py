"""Models with random weights as files, to measure what reading them takes."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from entracte.checkpoints.recognise import METADATA_MARK
from entracte.checkpoints.safetensors_file import DTYPES
from entracte.checkpoints.sources import ModelSource, TensorFile
from entracte.errors import MediaError
from entracte.models.formats import Float8, Format, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.units import MIB

from .demo import write_tokenizer
from .random_model import RandomSize, random_model

CHECKPOINT = "ltx-2.3-random-dev.safetensors"
DISTILLED_LORA = "ltx-2.3-random-distilled-lora-384.safetensors"
UPSAMPLER = "ltx-2.3-random-spatial-upscaler-x2.safetensors"
GEMMA = "gemma"

# How safetensors files call dtypes.
NAMES = {dtype: name for name, dtype in DTYPES.items()}

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
    """Write tensors as a safetensors file: quantised ones as they are stored, and others in
    bfloat16. Raises OSError.
    """
    stored = dict(_stored(file))
    header: dict[str, object] = {"__metadata__": dict(_metadata(file))}
    start = 0
    for key, (_, dtype, shape) in stored.items():
        end = start + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    words = json.dumps(header).encode()
    words = words.ljust(math.ceil(len(words) / ALIGNMENT) * ALIGNMENT)
    with path.open("wb", buffering=MIB) as out:
        out.write(len(words).to_bytes(8, "little"))
        out.write(words)
        for read, dtype, shape in stored.values():
            tensor = torch.empty(shape, dtype=dtype)
            read(tensor)
            out.write(tensor.view(-1).view(torch.uint8).numpy().data)


# Reads a tensor into memory, which has its dtype and its shape.
_Tensor = tuple[Callable[[Tensor], None], torch.dtype, tuple[int, ...]]


def _stored(file: TensorFile) -> Iterator[tuple[str, _Tensor]]:
    """A file's tensors, with those of quantised weights one by one."""
    for key, info in file.tensors.items():
        if info.format is None:
            yield key, (partial(file.read, key), torch.bfloat16, info.shape)
        for end, part in info.parts.items():
            yield key + end, (partial(file.read_stored, key, end), part.dtype, part.shape)


def _metadata(file: TensorFile) -> Iterator[tuple[str, str]]:
    """The header's texts, with what Comfy and others want to know of quantised layers."""
    yield from file.metadata.items()
    if file.config:
        yield "config", json.dumps(dict(file.config))
    layers = {
        key.removesuffix(".weight"): said
        for key, info in file.tensors.items()
        if info.format is not None and (said := _said(info.format)) is not None
    }
    if layers:
        yield METADATA_MARK, json.dumps({"format_version": "1.0", "layers": layers})


def _said(weight_format: Format) -> dict[str, object] | None:
    match weight_format:
        case ScaledFloat8(dtype):
            return {"format": str(dtype).removeprefix("torch.")}
        case Nvfp4(high_first=True, blocked=True):
            return {"format": "nvfp4"}
        case Mxfp8():
            return {"format": "mxfp8"}
        case Int8(None):
            return {"format": "int8_tensorwise"}
        case Int8(group):
            return {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": group}
        case Float8():
            return None
    raise ValueError(f"{weight_format.name} cannot be written to a safetensors file")
