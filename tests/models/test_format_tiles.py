"""How kernels read quantised tiles, against the plain expressions: on a GPU, or interpreted."""

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from entracte.models.formats import Float8, Format, Ggml, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.synthetic.random_file import Numbers, RandomFile

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS, COLUMNS = 16, 128

FORMATS: tuple[Format, ...] = (
    *(Float8(dtype) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)),
    *(ScaledFloat8(dtype) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)),
    *(Nvfp4(high_first, blocked) for high_first in (True, False) for blocked in (True, False)),
    Mxfp8(),
    Int8(),
    *(Ggml(f"Q{name}") for name in ("4_0", "4_1", "5_0", "5_1", "8_0", "4_K", "5_K", "6_K")),
)


@triton.jit
def expand_tiles(
    numbers,
    out,
    rows,
    width,
    READ: tl.constexpr,  # noqa: N803
    A: tl.constexpr,  # noqa: N803
    B: tl.constexpr,  # noqa: N803
):
    """One tile, without rounding: the interpreter cuts bfloat16 numbers instead."""
    row, column = tl.program_id(0) * 16, tl.program_id(1) * 128
    down, across = tl.arange(0, 16), tl.arange(0, 128)
    inside = (row + down < rows)[:, None] & (column + across < width)[None, :]
    tile = READ(numbers, row, column, down, across, rows, width, A, B)
    tl.store(out + (row + down)[:, None] * width + (column + across)[None, :], tile, mask=inside)


def stored_tensors(weight_format: Format, shape: tuple[int, int]) -> dict[str, Tensor]:
    key = "transformer_blocks.0.attn1.to_q.weight"
    file = RandomFile(None, {key: shape}, Numbers(), formats={key: weight_format})
    stored = {}
    for end, part in file.tensors[key].parts.items():
        stored[end] = torch.empty(part.shape, dtype=part.dtype)
        file.read_stored(key, end, stored[end])
    return {end: tensor.to(DEVICE) for end, tensor in stored.items()}


def read_by_kernel(weight_format: Format, stored: dict[str, Tensor], out: Tensor) -> None:
    tiles = weight_format.tiles(stored, out.shape[1])
    assert tiles is not None
    address, *own = tiles.numbers
    numbers = torch.tensor([address, 0, 0, 0, 0, 0, 0, *own], device=DEVICE)
    grid = (triton.cdiv(len(out), ROWS), triton.cdiv(out.shape[1], COLUMNS))
    expand_tiles[grid](numbers, out, *out.shape, tiles.read, *tiles.constants)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("weight_format", FORMATS, ids=repr)
@pytest.mark.parametrize("shape", [(40, 512), (136, 768)], ids=str)
def test_tiles_are_the_plain_expression(weight_format: Format, shape: tuple[int, int]) -> None:
    stored = stored_tensors(weight_format, shape)
    wanted, found = torch.empty(shape, device=DEVICE), torch.zeros(shape, device=DEVICE)
    weight_format.expand(stored, wanted)
    read_by_kernel(weight_format, stored, found)
    assert torch.equal(found, wanted)
    assert wanted.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_number_in_float8(dtype: torch.dtype) -> None:
    """Also NaN and infinities."""
    numbers = torch.arange(256, dtype=torch.uint8, device=DEVICE).view(2, 128).view(dtype)
    found = torch.zeros(2, 128, device=DEVICE)
    read_by_kernel(Float8(dtype), {"": numbers}, found)
    assert torch.equal(found.nan_to_num(1e9), numbers.float().nan_to_num(1e9))


def test_scales_of_rows() -> None:
    stored = stored_tensors(ScaledFloat8(torch.float8_e4m3fn), (40, 128))
    stored["_scale"] = torch.rand(40, 1, device=DEVICE)
    wanted, found = torch.empty(40, 128, device=DEVICE), torch.zeros(40, 128, device=DEVICE)
    ScaledFloat8(torch.float8_e4m3fn).expand(stored, wanted)
    read_by_kernel(ScaledFloat8(torch.float8_e4m3fn), stored, found)
    assert torch.equal(found, wanted)


def test_what_is_left_to_the_plain_expression() -> None:
    for weight_format in (Int8(16), Ggml("Q2_K"), Ggml("Q3_K")):
        stored = stored_tensors(weight_format, (16, 256))
        assert weight_format.tiles(stored, 256) is None
