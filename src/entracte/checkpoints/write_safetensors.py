"""Writes safetensors files tensor by tensor, in memory of the largest one."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entracte.models.formats import Float8, Format, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.rows import Part
from entracte.units import MIB

from .recognise import METADATA_MARK
from .safetensors_file import DTYPES

# How safetensors files call dtypes.
NAMES = {dtype: name for name, dtype in DTYPES.items()}

# A header is padded to the alignment of tensors.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class NewTensors:
    """Tensors to write that are made at once. parts: by key. make: their numbers, by key."""

    parts: Mapping[str, Part]
    make: Callable[[], Mapping[str, Tensor]]

    @property
    def nbytes(self) -> int:
        return sum(math.prod(shape) * dtype.itemsize for dtype, shape in self.parts.values())


def one_tensor(key: str, part: Part, read: Callable[[Tensor], None]) -> NewTensors:
    """A single tensor. read: writes its numbers into memory of its dtype and shape."""

    def make() -> Mapping[str, Tensor]:
        dtype, shape = part
        out = torch.empty(shape, dtype=dtype)
        read(out)
        return {key: out}

    return NewTensors({key: part}, make)


def write_safetensors(
    path: Path,
    tensors: Iterable[NewTensors],
    metadata: Mapping[str, str],
    written: Callable[[int], None] = lambda _: None,
) -> None:
    """Write a file, in the given order. written: called with how many bytes were written more.

    Raises OSError, and what making a tensor raises.
    """
    tensors = list(tensors)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for key, (dtype, shape) in chain.from_iterable(each.parts.items() for each in tensors):
        end = start + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    words = json.dumps(header).encode()
    words = words.ljust(math.ceil(len(words) / ALIGNMENT) * ALIGNMENT)
    with path.open("wb", buffering=MIB) as out:
        out.write(len(words).to_bytes(8, "little"))
        out.write(words)
        for each in tensors:
            made = each.make()
            for key in each.parts:
                out.write(made[key].reshape(-1).view(torch.uint8).numpy().data)
            written(each.nbytes)


def said_of(weight_format: Format) -> dict[str, object] | None:
    """What Comfy and others want to know of a layer in a format; None: nothing.

    Raises ValueError for formats that safetensors files cannot say.
    """
    match weight_format:
        case ScaledFloat8(dtype, full_precision):
            name = str(dtype).removeprefix("torch.")
            return {"format": name} | (
                {"full_precision_matrix_mult": True} if full_precision else {}
            )
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


def with_layers(metadata: Mapping[str, str], layers: Mapping[str, object]) -> dict[str, str]:
    """A header's texts with what is said of layers."""
    if not layers:
        return dict(metadata)
    said = json.dumps({"format_version": "1.0", "layers": dict(layers)})
    return {**metadata, METADATA_MARK: said}
