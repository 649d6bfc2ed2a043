"""How a kernel reads a tile of a quantised weight: to the numbers that `expand` has, in float32.

Every reader takes where four numbers of the weight are (the address of what is stored, and three of
the format's own, 7 further: see `tiles`), the tile's first row and column, its rows and columns
counted from there, of which there are at least 64, the weight's rows and columns, and two constants
of the format. What is beyond the edge is undefined.

Multiplying two numbers and adding a third may be done with one rounding on a GPU. It is the same
with two wherever it occurs here, since those products have at most 22 bits.
"""

# Every reader has all parameters, and constants that the compiler takes branches out by.
# ruff: noqa: ARG001, N803, N806, SIM108

import triton
import triton.language as tl


@triton.jit
def _bytes(address, places, inside):  # type: ignore[no-untyped-def]
    """Bytes that are read once, int32."""
    data = address.to(tl.pointer_type(tl.uint8))
    return tl.load(data + places, mask=inside, other=0, eviction_policy="evict_first").to(tl.int32)


@triton.jit
def _byte_rows(address, places, inside):  # type: ignore[no-untyped-def]
    """The same of whole vectors in rows."""
    data = tl.multiple_of(address.to(tl.pointer_type(tl.uint8)) + places, [1, 16])
    return tl.load(data, mask=inside, other=0, eviction_policy="evict_first").to(tl.int32)


@triton.jit
def _halves(address, places, inside):  # type: ignore[no-untyped-def]
    """float16 at so many bytes, float32."""
    data = (address.to(tl.pointer_type(tl.uint8)) + places).to(tl.pointer_type(tl.float16))
    return tl.load(data, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _as_float16(bits):  # type: ignore[no-untyped-def]
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _e4m3(byte):  # type: ignore[no-untyped-def]
    """int32 bytes: sign, exponent and mantissa where float16 has them, which counts 8 lower."""
    number = _as_float16((byte & 0x80) << 8 | (byte & 0x7F) << 7) * 256.0
    return tl.where((byte & 0x7F) == 0x7F, float("nan"), number)


@triton.jit
def _signed(byte):  # type: ignore[no-untyped-def]
    """int32 bytes as float32, of two's complement."""
    return ((byte ^ 0x80) - 0x80).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _scaled(numbers, scales, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """[rows, columns] times [rows, columns / GROUP]."""
    ROWS: tl.constexpr = numbers.shape[0]
    COLUMNS: tl.constexpr = numbers.shape[1]
    groups = tl.reshape(numbers, [ROWS, COLUMNS // GROUP, GROUP])
    return tl.reshape(groups * scales[:, :, None], [ROWS, COLUMNS])


@triton.jit  # type: ignore[untyped-decorator]
def _shifted(numbers, least, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """[rows, columns] and [rows, columns / GROUP] together."""
    ROWS: tl.constexpr = numbers.shape[0]
    COLUMNS: tl.constexpr = numbers.shape[1]
    groups = tl.reshape(numbers, [ROWS, COLUMNS // GROUP, GROUP])
    return tl.reshape(groups + least[:, :, None], [ROWS, COLUMNS])


@triton.jit  # type: ignore[untyped-decorator]
def _nibbles(bytes_of, RUN: tl.constexpr):  # type: ignore[no-untyped-def]
    """[rows, n] bytes to [rows, 2 * n]: of every RUN bytes first all low halves, then all high."""
    ROWS: tl.constexpr = bytes_of.shape[0]
    COUNT: tl.constexpr = bytes_of.shape[1]
    both = tl.join(bytes_of & 15, bytes_of >> 4)
    runs = tl.permute(tl.reshape(both, [ROWS, COUNT // RUN, RUN, 2]), (0, 1, 3, 2))
    return tl.reshape(runs, [ROWS, 2 * COUNT])


@triton.jit
def _row_scales(numbers, row, rows, height):  # type: ignore[no-untyped-def]
    """[rows, 1]: of one scale for all, or one for every row."""
    scales = tl.load(numbers + 7).to(tl.pointer_type(tl.float32))
    return tl.load(scales + tl.minimum(row + rows, height - 1) * tl.load(numbers + 8))[:, None]


@triton.jit  # type: ignore[untyped-decorator]
def read_float8(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    E5M2: tl.constexpr,
    SCALED: tl.constexpr,
):
    """Own numbers: the address of the scale, and 1 where every row has one, else 0."""
    at, across = (row + rows)[:, None], (column + columns)[None, :]
    inside = (at < height) & (across < width)
    byte = _byte_rows(tl.load(numbers), at.to(tl.int64) * width + across, inside)
    if E5M2:
        number = _as_float16(byte << 8)
    else:
        number = _e4m3(byte)
    if SCALED:
        number = number * _row_scales(numbers, row, rows, height)
    return number


@triton.jit  # type: ignore[untyped-decorator]
def read_int8(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """Own numbers: the address of the scale, and 1 where every row has one, else 0."""
    at, across = (row + rows)[:, None], (column + columns)[None, :]
    inside = (at < height) & (across < width)
    byte = _byte_rows(tl.load(numbers), at.to(tl.int64) * width + across, inside)
    return _signed(byte) * _row_scales(numbers, row, rows, height)


@triton.jit
def _blocked(row, group, tiles):  # type: ignore[no-untyped-def]
    """Where the scale of a row and a group of inputs is, with so many tiles across."""
    tile = row // 128 * tiles + group // 4
    return ((tile * 32 + row % 32) * 4 + row % 128 // 32) * 4 + group % 4


@triton.jit  # type: ignore[untyped-decorator]
def read_nvfp4(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    HIGH_FIRST: tl.constexpr,
    BLOCKED: tl.constexpr,
):
    """Own numbers: the addresses of both scales, and tiles across, or groups where not blocked."""
    ROWS: tl.constexpr = rows.shape[0]
    COLUMNS: tl.constexpr = columns.shape[0]
    at = (row + rows)[:, None]
    pairs = (column // 2 + tl.arange(0, COLUMNS // 2))[None, :]
    inside = (at < height) & (2 * pairs < width)
    byte = _byte_rows(tl.load(numbers), at.to(tl.int64) * (width // 2) + pairs, inside)
    if HIGH_FIRST:
        code = tl.join(byte >> 4, byte & 15)
    else:
        code = tl.join(byte & 15, byte >> 4)
    number = _as_float16((code & 8) << 12 | (code & 7) << 9) * 16384.0
    group = (column // 16 + tl.arange(0, COLUMNS // 16))[None, :]
    across = tl.load(numbers + 9).to(tl.int32)
    if BLOCKED:
        place = _blocked(at, group, across)
    else:
        place = at * across + group
    inside = (at < height) & (16 * group < width)
    scale = _e4m3(_bytes(tl.load(numbers + 7), place, inside))
    of_all = tl.load(tl.load(numbers + 8).to(tl.pointer_type(tl.float32)))
    return _scaled(tl.reshape(number, [ROWS, COLUMNS]), scale * of_all, 16)


@triton.jit  # type: ignore[untyped-decorator]
def read_mxfp8(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """Own numbers: the address of the scales, and tiles across."""
    COLUMNS: tl.constexpr = columns.shape[0]
    at, across = (row + rows)[:, None], (column + columns)[None, :]
    inside = (at < height) & (across < width)
    number = _e4m3(_byte_rows(tl.load(numbers), at.to(tl.int64) * width + across, inside))
    group = (column // 32 + tl.arange(0, COLUMNS // 32))[None, :]
    place = _blocked(at, group, tl.load(numbers + 8).to(tl.int32))
    power = _bytes(tl.load(numbers + 7), place, (at < height) & (32 * group < width))
    bits = tl.where(power == 0, 0x400000, tl.where(power == 255, 0x7FC00000, power << 23))
    return _scaled(number, bits.to(tl.float32, bitcast=True), 32)


@triton.jit  # type: ignore[untyped-decorator]
def read_ggml_32(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    BITS: tl.constexpr,
    LEAST: tl.constexpr,
):
    """Q8_0, Q4_0 and Q4_1, Q5_0 and Q5_1: blocks of 32. LEAST: whether they have a least number."""
    COLUMNS: tl.constexpr = columns.shape[0]
    HEAD: tl.constexpr = 4 if LEAST else 2
    HIGH: tl.constexpr = 4 if BITS == 5 else 0
    SIZE: tl.constexpr = HEAD + HIGH + (32 if BITS == 8 else 16)
    address, at = tl.load(numbers), (row + rows)[:, None]
    first = at.to(tl.int64) * (width // 32) + column // 32
    groups = tl.arange(0, COLUMNS // 32)[None, :]
    inside = (at < height) & (column + 32 * groups < width)
    d = _halves(address, (first + groups) * SIZE, inside)
    all_inside = (at < height) & ((column + columns)[None, :] < width)
    within = columns[None, :]
    if BITS == 8:
        byte = _bytes(address, (first + within // 32) * SIZE + HEAD + within % 32, all_inside)
        return _scaled(_signed(byte), d, 32)
    halves = tl.arange(0, COLUMNS // 2)[None, :]
    places = (first + halves // 16) * SIZE + HEAD + HIGH + halves % 16
    code = _nibbles(_bytes(address, places, (at < height) & (column + 2 * halves < width)), 16)
    if BITS == 5:
        places = (first + within // 32) * SIZE + HEAD + within % 32 // 8
        code = code | (_bytes(address, places, all_inside) >> within % 8 & 1) << 4
    if LEAST:
        least = _halves(address, (first + groups) * SIZE + 2, inside)
        return _shifted(_scaled(code.to(tl.float32), d, 32), least, 32)
    return _scaled((code - (1 << (BITS - 1))).to(tl.float32), d, 32)


@triton.jit  # type: ignore[untyped-decorator]
def read_ggml_45(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    BITS: tl.constexpr,
    B: tl.constexpr,
):
    """Q4_K and Q5_K: blocks of 256 in eight groups, whose scales have 6 bits."""
    COLUMNS: tl.constexpr = columns.shape[0]
    HIGH: tl.constexpr = 32 if BITS == 5 else 0
    SIZE: tl.constexpr = 144 + HIGH
    address, at = tl.load(numbers), (row + rows)[:, None]
    first = at.to(tl.int64) * (width // 256)
    byte = tl.arange(0, COLUMNS // 2)[None, :]
    across = column + byte // 32 * 64
    places = (first + across // 256) * SIZE + 16 + HIGH + across % 256 // 2 + byte % 32
    code = _nibbles(_bytes(address, places, (at < height) & (across < width)), 32)
    if BITS == 5:
        across = (column + columns)[None, :]
        places = (first + across // 256) * SIZE + 16 + across % 32
        high = _bytes(address, places, (at < height) & (across < width))
        code = code | (high >> across % 256 // 32 & 1) << 4
    across = (column + tl.arange(0, COLUMNS // 32) * 32)[None, :]
    inside, group = (at < height) & (across < width), across % 256 // 32
    block = (first + across // 256) * SIZE
    one = _bytes(address, block + 4 + group % 4, inside)
    two = _bytes(address, block + 8 + group % 4, inside)
    rest = _bytes(address, block + 12 + group % 4, inside)
    scale = tl.where(group < 4, one & 63, rest & 15 | one >> 2 & 48).to(tl.float32)
    least = tl.where(group < 4, two & 63, rest >> 4 | two >> 2 & 48).to(tl.float32)
    d, dmin = _halves(address, block, inside), _halves(address, block + 2, inside)
    return _shifted(_scaled(code.to(tl.float32), d * scale, 32), -(dmin * least), 32)


@triton.jit  # type: ignore[untyped-decorator]
def read_ggml_6(  # type: ignore[no-untyped-def]
    numbers,
    row,
    column,
    rows,
    columns,
    height,
    width,
    A: tl.constexpr,
    B: tl.constexpr,
):
    """Q6_K: blocks of 256 in 16 groups, whose scales have 8 bits."""
    COLUMNS: tl.constexpr = columns.shape[0]
    address, at = tl.load(numbers), (row + rows)[:, None]
    first = at.to(tl.int64) * (width // 256)
    across = (column + columns)[None, :]
    inside, block = (at < height) & (across < width), (first + across // 256) * 210
    half, place = across % 256 // 128, across % 128
    low = _bytes(address, block + half * 64 + place % 64, inside) >> place // 64 * 4 & 15
    high = _bytes(address, block + 128 + half * 32 + place % 32, inside) >> place // 32 * 2 & 3
    across = (column + tl.arange(0, COLUMNS // 16) * 16)[None, :]
    inside, block = (at < height) & (across < width), (first + across // 256) * 210
    scale = _signed(_bytes(address, block + 192 + across % 256 // 16, inside))
    d = _halves(address, block + 208, inside)
    return _scaled(((low | high << 4) - 32).to(tl.float32), d * scale, 16)
