"""The types of ggml that GGUF files mostly hold: rows of blocks, each with its scales inside.

What every byte means is ggml's; each type is decoded in float32, in the order of operations of the
`gguf` package, to the same bits. d and dmin are the float16 numbers of a block.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from .rows import Part, by_rows
from .tiles import TileReader, address_of

# Of a block's bytes, [blocks, nbytes] uint8, to its numbers, [blocks, size] float32.
DecodeBlocks = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class BlockType:
    """size: numbers of a block. nbytes: what it takes."""

    size: int
    nbytes: int
    decode: DecodeBlocks


def _float16(data: Tensor) -> Tensor:
    """[blocks, 2] bytes to [blocks, 1] float32."""
    return data.contiguous().view(torch.float16).float()


def _planes(data: Tensor, width: int, bits: int, count: int) -> Tensor:
    """Numbers of so many bits from bytes that each hold `count` of them.

    [blocks, n * width] to [blocks, n * count * width]: of every `width` bytes first all lowest
    bits, then all next ones.
    """
    shifts = torch.arange(0, bits * count, bits, dtype=torch.uint8, device=data.device)
    groups: Tensor = data.view(len(data), -1, 1, width) >> shifts.view(1, 1, count, 1)
    groups &= 2**bits - 1
    return groups.flatten(1)


def _scaled(scale: Tensor, numbers: Tensor) -> Tensor:
    """[blocks, groups] float32 times [blocks, size] of any dtype."""
    groups = numbers.float().view(len(numbers), scale.shape[1], -1)
    return (scale.unsqueeze(2) * groups).flatten(1)


def _less(numbers: Tensor, minimum: Tensor) -> Tensor:
    """Take [blocks, groups] float32 from [blocks, size]."""
    return (numbers.view(len(numbers), minimum.shape[1], -1) - minimum.unsqueeze(2)).flatten(1)


def _fifth_bits(data: Tensor) -> Tensor:
    """[blocks, 4] bytes to [blocks, 32]: 0 or 16."""
    shifts = torch.arange(8, dtype=torch.uint8, device=data.device)
    bits: Tensor = (data.unsqueeze(2) >> shifts) & 1
    return bits.flatten(1) << 4


def _q4_0(data: Tensor) -> Tensor:
    return _float16(data[:, :2]) * (_planes(data[:, 2:].contiguous(), 16, 4, 2).char() - 8).float()


def _q4_1(data: Tensor) -> Tensor:
    numbers = _planes(data[:, 4:].contiguous(), 16, 4, 2).float()
    return _float16(data[:, :2]) * numbers + _float16(data[:, 2:4])


def _q5_0(data: Tensor) -> Tensor:
    numbers = _planes(data[:, 6:].contiguous(), 16, 4, 2) | _fifth_bits(data[:, 2:6])
    return _float16(data[:, :2]) * (numbers.char() - 16).float()


def _q5_1(data: Tensor) -> Tensor:
    numbers = _planes(data[:, 8:].contiguous(), 16, 4, 2) | _fifth_bits(data[:, 4:8])
    return _float16(data[:, :2]) * numbers.float() + _float16(data[:, 2:4])


def _q8_0(data: Tensor) -> Tensor:
    return data[:, 2:].contiguous().view(torch.int8).float() * _float16(data[:, :2])


def _q2_k(data: Tensor) -> Tensor:
    scales, numbers = data[:, :16], _planes(data[:, 16:80].contiguous(), 32, 2, 4)
    d, dmin = _float16(data[:, 80:82]), _float16(data[:, 82:84])
    return _less(_scaled(d * (scales & 15).float(), numbers), dmin * (scales >> 4).float())


def _q3_k(data: Tensor) -> Tensor:
    high = _planes(data[:, :32].contiguous(), 32, 1, 8)  # 1: nothing is to be taken off
    low = _planes(data[:, 32:96].contiguous(), 32, 2, 4)
    scales = _planes(data[:, 96:104].contiguous(), 8, 4, 2)
    scales = scales | _planes(data[:, 104:108].contiguous(), 4, 2, 4) << 4
    d = _float16(data[:, 108:110])
    return _scaled(d * (scales.char() - 32).float(), low.char() - ((high ^ 1) << 2).char())


def _scales_and_minima(data: Tensor) -> tuple[Tensor, Tensor]:
    """Of Q4_K and Q5_K: [blocks, 12] bytes to twice [blocks, 8], 6 bits each."""
    first, second, rest = data[:, :4], data[:, 4:8], data[:, 8:]
    scales = torch.cat([first & 63, (rest & 15) | ((first >> 2) & 48)], 1)
    minima = torch.cat([second & 63, (rest >> 4) | ((second >> 2) & 48)], 1)
    return scales.float(), minima.float()


def _q4_k(data: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(data[:, 4:16])
    numbers = _planes(data[:, 16:].contiguous(), 32, 4, 2)
    d, dmin = _float16(data[:, :2]), _float16(data[:, 2:4])
    return _less(_scaled(d * scales, numbers), dmin * minima)


def _q5_k(data: Tensor) -> Tensor:
    scales, minima = _scales_and_minima(data[:, 4:16])
    high = _planes(data[:, 16:48].contiguous(), 32, 1, 8)
    numbers = _planes(data[:, 48:].contiguous(), 32, 4, 2) | high << 4
    d, dmin = _float16(data[:, :2]), _float16(data[:, 2:4])
    return _less(_scaled(d * scales, numbers), dmin * minima)


def _q6_k(data: Tensor) -> Tensor:
    low = _planes(data[:, :128].contiguous(), 64, 4, 2)
    high = _planes(data[:, 128:192].contiguous(), 32, 2, 4)
    scales = data[:, 192:208].contiguous().view(torch.int8).float()
    return _scaled(_float16(data[:, 208:210]) * scales, (low | high << 4).char() - 32)


TYPES: Mapping[str, BlockType] = MappingProxyType(
    {
        "Q4_0": BlockType(32, 18, _q4_0),
        "Q4_1": BlockType(32, 20, _q4_1),
        "Q5_0": BlockType(32, 22, _q5_0),
        "Q5_1": BlockType(32, 24, _q5_1),
        "Q8_0": BlockType(32, 34, _q8_0),
        "Q2_K": BlockType(256, 84, _q2_k),
        "Q3_K": BlockType(256, 110, _q3_k),
        "Q4_K": BlockType(256, 144, _q4_k),
        "Q5_K": BlockType(256, 176, _q5_k),
        "Q6_K": BlockType(256, 210, _q6_k),
    }
)


@dataclass(frozen=True, slots=True)
class Ggml:
    """A type of ggml, by its name. Stored: "", [rows, bytes of a row] uint8."""

    type: str

    @property
    def name(self) -> str:
        return self.type.lower()

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def on_device(self) -> bool:
        """Whether it is expanded where it is needed; rare types are so on the host alone."""
        return self.type in TYPES

    def parts(self, rows: int, columns: int) -> Mapping[str, Part]:
        """What is stored of a weight [rows, columns] in one of `TYPES`."""
        kind = TYPES[self.type]
        return {"": (torch.uint8, (rows, columns // kind.size * kind.nbytes))}

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> TileReader | None:  # noqa: ARG002
        """How a kernel reads a weight [out, columns]; None where `expand` must do it."""
        from . import tiles_triton  # Triton may be missing

        numbers = address_of(stored), 0, 0, 0
        match self.type:
            case "Q8_0":
                return TileReader(tiles_triton.read_ggml_32, (8, 0), numbers)
            case "Q4_0" | "Q4_1" | "Q5_0" | "Q5_1":
                constants = int(self.type[1]), int(self.type[3])
                return TileReader(tiles_triton.read_ggml_32, constants, numbers)
            case "Q4_K" | "Q5_K":
                return TileReader(tiles_triton.read_ggml_45, (int(self.type[1]), 0), numbers)
            case "Q6_K":
                return TileReader(tiles_triton.read_ggml_6, (0, 0), numbers)
        return None

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write the stored tensor into `out` [..., columns]: in float32, then rounded once."""
        data = stored[""]

        def rows(first: int, last: int) -> Tensor:
            return _decoded(self.type, data[first:last]).view(last - first, -1)

        by_rows(rows, out.view(len(data), -1))


def _decoded(name: str, rows: Tensor) -> Tensor:
    if name in TYPES:
        return TYPES[name].decode(rows.view(-1, TYPES[name].nbytes))
    from gguf import GGMLQuantizationType, dequantize  # slow to import, and seldom needed

    return torch.from_numpy(dequantize(rows.numpy(), GGMLQuantizationType[name]))
