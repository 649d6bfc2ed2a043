"""Weights in several files: shards, named by an index or by their numbers. Needs no torch."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError

from entracte.errors import CheckpointError

from .json_file import first_problem, read_json

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".gguf")
INDEX_SUFFIX = ".safetensors.index.json"
NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)")

# A plain name: no folder, nothing hidden.
ShardName = Annotated[str, StringConstraints(pattern=r"^[^./\\\x00][^/\\\x00]*\.safetensors$")]
WEIGHT_MAP = TypeAdapter(dict[str, ShardName], config=ConfigDict(strict=True))


def shards(folder: Path, stem: str) -> list[Path]:
    """The files of weights called `stem` in a folder, from their index or in one file; or the only
    file of weights there, whatever it is called.

    Raises CheckpointError if there are none.
    """
    index, single = folder / (stem + INDEX_SUFFIX), folder / (stem + SUFFIX)
    if index.exists():
        return read_index(index)
    if not single.exists():
        others = sorted(folder.glob(f"[!.]*{SUFFIX}"))
        if len(others) == 1:
            return shards_of(others[0])
        raise CheckpointError(
            f"{folder} has neither {single.name} nor {index.name}{_instead(folder)}"
        )
    return [single]


def read_index(index: Path) -> list[Path]:
    """The files that an index names, all beside it; raises CheckpointError if it is invalid."""
    try:
        names = WEIGHT_MAP.validate_python(read_json(index).get("weight_map"))
    except ValidationError as error:
        raise CheckpointError(
            f"{index} is not an index of shards: weight_map maps tensors to names of .safetensors "
            f"files beside it ({first_problem(error)})"
        ) from None
    if not names:
        raise CheckpointError(f"{index} names no shards")
    return [index.parent / name for name in sorted(set(names.values()))]


def shards_of(path: Path) -> list[Path]:
    """All files that belong to a given one: those of an index, or the shards beside a shard."""
    if path.name.endswith(INDEX_SUFFIX):
        return read_index(path)
    match = NUMBERED.fullmatch(path.name.removesuffix(SUFFIX))
    if match is None:
        return [path]
    for index in path.parent.glob(f"*{INDEX_SUFFIX}"):
        paths = read_index(index)
        if path in paths:
            return paths
    count = int(match[3])
    if not 0 < count < 10_000:
        return [path]
    width = len(match[2])
    return [
        path.with_name(f"{match[1]}-{number:0{width}}-of-{match[3]}{SUFFIX}")
        for number in range(1, count + 1)
    ]


def _instead(folder: Path) -> str:
    """Files of other formats that exist instead, in words."""
    kinds = (".gguf", ".bin", ".pt", ".pth", ".ckpt")
    found = sorted(path.name for path in folder.glob("*") if path.suffix in kinds)
    return f"; {found[0]} is of a format that is not supported" if found else ""
