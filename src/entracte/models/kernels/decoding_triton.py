"""The elementwise work of the decoders in Triton: that between two convolutions of a video, and the
vocoder's activations.

Every intermediate that torch's operators would round is rounded here (see `elementwise_triton`).
The sums, a place's mean square and a filter's products, are in this file's order.
"""

import triton
import triton.language as tl


# Sizes are not specialised: a video of another size needs no other kernels.
@triton.jit(do_not_specialize=["frames", "height", "width"])  # type: ignore[untyped-decorator]
def between_convolutions_kernel(  # type: ignore[no-untyped-def]
    y,  # [source frames, source height, source width, CHANNELS * all strides]
    bias,
    residual,  # [frames, height, width, CHANNELS]
    kept,  # likewise
    padded,  # [frames + 2, height, width, CHANNELS]
    frames,
    height,
    width,
    eps,
    FRAME_STRIDE: tl.constexpr,  # noqa: N803
    ROW_STRIDE: tl.constexpr,  # noqa: N803
    COLUMN_STRIDE: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    POWER: tl.constexpr,  # noqa: N803
    PLACES: tl.constexpr,  # noqa: N803
    RESIDUAL: tl.constexpr,  # noqa: N803
    KEPT: tl.constexpr,  # noqa: N803
    NORMED: tl.constexpr,  # noqa: N803
):
    """x = y + bias, with channels moved to places by the strides, + residual; then silu(norm(x)).

    x is stored in `kept`; the last result in `padded`, its first and last frame twice.
    """
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    channel = tl.arange(0, POWER)[None, :]
    plane = height * width
    frame = place // plane
    inside = (place < frames * plane)[:, None] & (channel < CHANNELS)
    here = place.to(tl.int64)[:, None] * CHANNELS + channel
    strides: tl.constexpr = FRAME_STRIDE * ROW_STRIDE * COLUMN_STRIDE
    if strides == 1:
        source, of_channel = here, channel + tl.zeros([PLACES, 1], tl.int32)
    else:
        # A video that becomes longer loses its first frames.
        late = frame + (FRAME_STRIDE - 1)
        row = place % plane // width
        column = place % width
        source = (late // FRAME_STRIDE) * (height // ROW_STRIDE) + row // ROW_STRIDE
        source = source * (width // COLUMN_STRIDE) + column // COLUMN_STRIDE
        part = (late % FRAME_STRIDE) * ROW_STRIDE + row % ROW_STRIDE
        part = part * COLUMN_STRIDE + column % COLUMN_STRIDE
        of_channel = channel * strides + part[:, None]
        source = source.to(tl.int64)[:, None] * (CHANNELS * strides) + of_channel
    values = tl.load(y + source, mask=inside, other=0.0)
    dtype = values.dtype
    add = tl.load(bias + of_channel, mask=inside, other=0.0)
    values = (values.to(tl.float32) + add.to(tl.float32)).to(dtype)
    if RESIDUAL:
        add = tl.load(residual + here, mask=inside, other=0.0)
        values = (values.to(tl.float32) + add.to(tl.float32)).to(dtype)
    if KEPT:
        tl.store(kept + here, values, mask=inside)
    if NORMED:
        wide = values.to(tl.float32)
        squares = (wide * wide).to(dtype).to(tl.float32)
        mean = (tl.sum(squares, 1) / CHANNELS).to(dtype).to(tl.float32)
        root = tl.sqrt_rn((mean + eps).to(dtype).to(tl.float32)).to(dtype).to(tl.float32)
        root = tl.broadcast_to(root[:, None], wide.shape)
        normed = tl.div_rn(wide, root).to(dtype).to(tl.float32)
        values = tl.div_rn(normed, 1.0 + tl.exp(-normed)).to(dtype)
    there = here + plane * CHANNELS  # a frame later
    tl.store(padded + there, values, mask=inside)
    tl.store(padded + here, values, mask=inside & (frame == 0)[:, None])
    last = there + plane * CHANNELS
    tl.store(padded + last, values, mask=inside & (frame == frames - 1)[:, None])


@triton.jit
def _at(x, place, length):  # type: ignore[no-untyped-def]
    """x where a place is; before its first and after its last number, those."""
    return tl.load(x + tl.minimum(tl.maximum(place, 0), length - 1))


@triton.jit(do_not_specialize=["channels", "length"])  # type: ignore[untyped-decorator]
def upsampled_snake_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows * channels, length]
    weights,  # [12], of the filter
    alpha,  # [channels]
    beta,
    out,  # [rows * channels, 2 * length]
    channels,
    length,
    eps,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """u + sin(exp(alpha) u)^2 / (exp(beta) + eps), u being x at twice its rate."""
    line = tl.program_id(1)
    channel = line % channels
    x += line.to(tl.int64) * length
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    even = tl.zeros([BLOCK], tl.float32)
    odd = tl.zeros([BLOCK], tl.float32)
    for tap in tl.static_range(6):
        even += tl.load(weights + 2 * tap + 1) * _at(x, place + (2 - tap), length)
        odd += tl.load(weights + 2 * tap) * _at(x, place + (3 - tap), length)
    u = tl.interleave(2.0 * even, 2.0 * odd)
    wave = tl.sin(u * tl.exp(tl.load(alpha + channel)))
    u += wave * wave * (1.0 / (tl.exp(tl.load(beta + channel)) + eps))
    to = tl.program_id(0) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    tl.store(out + line.to(tl.int64) * (2 * length) + to, u, mask=to < 2 * length)


@triton.jit(do_not_specialize=["length"])  # type: ignore[untyped-decorator]
def downsample_kernel(  # type: ignore[no-untyped-def]
    x,  # [rows * channels, 2 * length]
    weights,  # [12], of the filter
    out,  # [rows * channels, length]
    length,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """x at half its rate."""
    line = tl.program_id(1).to(tl.int64)
    x += line * (2 * length)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for tap in tl.static_range(12):
        total += tl.load(weights + tap) * _at(x, 2 * place + (tap - 5), 2 * length)
    tl.store(out + line * length + place, total, mask=place < length)
