"""The fused elementwise kernels against the plain expressions: on a GPU, or interpreted."""

import os
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entracte.models.float8 import FLOAT8, Activations, Float8Rows, quantise_rows
from entracte.models.formats.products import Float8Linear
from entracte.models.transformer.elementwise import PLAIN, Elementwise, GatedUpdate
from entracte.models.transformer.exchange import HeadRoom
from entracte.models.transformer.linear import Linear
from entracte.models.transformer.modulation import Modulation, TokenRun, TokenTimesteps
from entracte.models.transformer.rotary import Rotary

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.sampled_from((1, 2, 4)))
# The interpreter cuts bfloat16 numbers instead of rounding them.
HALF = torch.float16 if INTERPRETED else torch.bfloat16
DTYPES = st.sampled_from((HALF, torch.float32))
EXAMPLES = settings(deadline=None, max_examples=8 if INTERPRETED else 100)
# A norm's sum is in another order: the last bit of the rounded result may differ.
LAST_BIT = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 2e-6}


@pytest.fixture(scope="module")
def fused() -> Elementwise:
    from entracte.models.kernels.elementwise import FusedElementwise

    return FusedElementwise()


def random(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def timesteps(tokens: int, split: int) -> TokenTimesteps:
    """All tokens alike, or so many of a second timestep."""
    runs = [TokenRun(0, tokens, 0)]
    if 0 < split < tokens:
        runs = [TokenRun(0, split, 1), TokenRun(split, tokens, 0)]
    return TokenTimesteps.of(runs, DEVICE)


def modulation(seed: int, width: int, of: TokenTimesteps, dtype: torch.dtype) -> Modulation:
    """Rows of a table, as in a block: not contiguous."""
    table = random(seed, 2, 9, width, dtype=dtype)
    return Modulation(table[:, 3], table[:, 4], of)


def compare(
    x: Tensor, run: Callable[[Elementwise, Tensor], list[Tensor]], fused: Elementwise
) -> tuple[list[Tensor], list[Tensor]]:
    """Results of both, and what became of x."""
    plain_x, fused_x = x.clone(), x.clone()
    plain = [*run(PLAIN, plain_x), plain_x]
    made = [*run(fused, fused_x), fused_x]
    assert [each.shape for each in made] == [each.shape for each in plain]
    return made, plain


def assert_close(made: Tensor, plain: Tensor, size: float = 1.0) -> None:
    tolerance = LAST_BIT[plain.dtype]
    torch.testing.assert_close(made, plain, rtol=2 * tolerance, atol=tolerance * size)
    if plain.dtype == HALF and plain.numel() > 500:
        assert (made != plain).float().mean() <= 0.02


@given(SIZES, DTYPES, st.integers(0, 6), st.integers(0, 2), st.integers(0, 99))
@EXAMPLES
def test_an_update_is_added_bit_for_bit(fused, size, dtype, split, first, seed) -> None:
    rows, tokens, scale = size
    first = min(first, rows - 1)
    x = random(seed, rows, tokens, 96 * scale, dtype=dtype)
    value = random(seed + 1, rows - first, tokens, 96 * scale, dtype=dtype)
    gate = random(seed + 2, 2, 9, 96 * scale, dtype=dtype)[:, 2]

    def run(ops: Elementwise, x: Tensor) -> list[Tensor]:
        ops.add(x, GatedUpdate(value.clone(), gate, timesteps(tokens, split), first))
        return []

    made, plain = compare(x, run, fused)
    assert torch.equal(made[0], plain[0])


@given(SIZES, DTYPES, st.integers(0, 99))
@EXAMPLES
def test_text_is_modulated_bit_for_bit(fused, size, dtype, seed) -> None:
    rows, tokens, scale = size
    x = random(seed, rows, tokens, 96 * scale, dtype=dtype)
    by, add = random(seed + 1, 2, 96 * scale, dtype=dtype)

    def run(ops: Elementwise, x: Tensor) -> list[Tensor]:
        return [ops.modulated(x, by, add)]

    made, plain = compare(x, run, fused)
    assert torch.equal(made[0], plain[0])
    assert torch.equal(made[1], x)


@given(SIZES, DTYPES, st.integers(0, 6), st.integers(0, 2), st.integers(0, 99), st.booleans())
@EXAMPLES
def test_modulated_norms(fused, size, dtype, split, first, seed, updated) -> None:
    rows, tokens, scale = size
    first, width = min(first, rows - 1), 96 * scale
    x = random(seed, rows, tokens, width, dtype=dtype)
    value = random(seed + 1, rows, tokens, width, dtype=dtype)
    gate = random(seed + 2, 2, 9, width, dtype=dtype)[:, 2]
    of = timesteps(tokens, split)
    by = [modulation(seed + 3 + number, width, of, dtype) for number in range(2)]

    def run(ops: Elementwise, x: Tensor) -> list[Tensor]:
        update = ops.defer(x, GatedUpdate(value.clone(), gate, of)) if updated else None
        return ops.modulated_norm(x, 1e-6, by[: 1 + seed % 2], update, first)

    made, plain = compare(x, run, fused)
    assert torch.equal(made[-1], plain[-1])
    for ours, theirs in zip(made[:-1], plain[:-1], strict=True):
        assert_close(ours, theirs, size=16)


def assert_quantised(made: Activations, exact: Activations, share: float = 0.0) -> None:
    """A result in float8 is what quantising the other one gives, but for a share of numbers.

    The interpreter rounds to float8 otherwise.
    """
    assert isinstance(made, Float8Rows)
    assert isinstance(exact, Tensor)
    expected = quantise_rows(exact)
    assert torch.equal(made.scales, expected.scales)
    if not INTERPRETED:
        # A norm's sum may be in another order in a kernel that writes float8.
        assert (made.numbers.float() != expected.numbers.float()).float().mean() <= share


@pytest.mark.parametrize("chosen", [[True, True], [True, False], [False, True]])
def test_modulated_norms_in_float8(fused, chosen: list[bool]) -> None:
    x, value = random(1, 2, 5, 192, dtype=HALF), random(2, 2, 5, 192, dtype=HALF)
    gate, of = random(3, 2, 9, 192, dtype=HALF)[:, 2], timesteps(5, 3)
    by = [modulation(seed, 192, of, HALF) for seed in (4, 5)]

    def run(float8: list[bool]) -> list[Activations]:
        update = GatedUpdate(value.clone(), gate, of)
        return fused.modulated_norm(x.clone(), 1e-6, by, update, 0, float8)

    for made, exact, each in zip(run(chosen), run([False, False]), chosen, strict=True):
        if each:
            assert_quantised(made, exact, share=1e-2)
        else:
            assert_close(made, exact, size=16)


def test_heads_in_float8(fused) -> None:
    out, gates = random(1, 2, 5, 1, 6, 48, dtype=HALF), random(2, 3, 5, 6, dtype=HALF)
    kept = random(3, 1, 5, 6, 48, dtype=HALF)
    exact = fused.gated_heads(out.clone(), gates, kept)
    assert_quantised(fused.gated_heads(out.clone(), gates, kept, float8=True), exact)


@given(SIZES, DTYPES, st.booleans(), st.integers(0, 99))
@EXAMPLES
def test_normed_heads(fused, size, dtype, rotated, seed) -> None:
    rows, tokens, heads = size
    half = 24
    x = random(seed, rows, tokens, heads * 2 * half, dtype=dtype)
    weight = random(seed + 1, heads * 2 * half, dtype=dtype)
    angles = random(seed + 2, tokens, heads, half, dtype=torch.float32)
    rotary = Rotary(angles.cos().to(dtype), angles.sin().to(dtype)) if rotated else None

    def run(ops: Elementwise, x: Tensor) -> list[Tensor]:
        return [ops.normed_heads(x.clone(), weight, 1e-6, heads, rotary)]

    made, plain = compare(x, run, fused)
    assert_close(made[0], plain[0], size=4)


@pytest.mark.parametrize("apart", [False, True])
def test_heads_that_other_devices_attend_for(fused, apart: bool) -> None:
    """They are the same, wherever they are written."""
    rows, tokens, heads, half, devices = 2, 5, 6, 24, 3
    x = random(1, rows, tokens, heads * 2 * half, dtype=HALF)
    weight = random(2, heads * 2 * half, dtype=HALF)
    shape = tokens, rows, heads // devices, 2 * half
    memory = None if apart else x.new_empty((devices, *shape))
    whole = [x.new_empty(shape) for _ in range(devices)] if memory is None else memory.unbind()
    parts = [part.transpose(0, 1) for part in whole]
    addresses = torch.tensor([part.data_ptr() for part in parts], device=DEVICE) if apart else None
    room = HeadRoom(parts, memory, addresses)
    for ops in (fused, PLAIN):
        expected = ops.normed_heads(x.clone(), weight, 1e-6, heads, None).clone()
        ops.normed_heads(x.clone(), weight, 1e-6, heads, None, room)
        assert torch.equal(torch.cat(parts, dim=2), expected)


@given(SIZES, DTYPES, st.integers(0, 2), st.booleans(), st.integers(0, 99))
@EXAMPLES
def test_heads_are_gated_bit_for_bit(fused, size, dtype, kept, transposed, seed) -> None:
    rows, tokens, heads = size
    kept, head_dim = min(kept, rows - 1), 48
    attending = rows - kept
    parts = 2 if heads % 2 == 0 else 1
    out = random(seed, attending, tokens, parts, heads // parts, head_dim, dtype=dtype)
    if transposed:  # as it comes from other devices
        out = random(seed, parts, tokens, attending, heads // parts, head_dim, dtype=dtype)
        out = out.permute(2, 1, 0, 3, 4)
    values = random(seed + 1, rows, tokens, heads, head_dim, dtype=dtype)
    gates = random(seed + 2, rows, tokens, heads, dtype=dtype)

    def run(ops: Elementwise, _: Tensor) -> list[Tensor]:
        further = values[attending:].clone() if kept else None
        given = out.clone(memory_format=torch.preserve_format)
        return [ops.gated_heads(given, gates, further)]

    made, plain = compare(gates, run, fused)
    assert torch.equal(made[0], plain[0])


@given(SIZES, DTYPES, st.integers(0, 99))
@EXAMPLES
def test_gates(fused, size, dtype, seed) -> None:
    rows, tokens, heads = size
    linear = Linear(96, heads).to(DEVICE, dtype).requires_grad_(False)
    linear.weight.copy_(random(seed, heads, 96, dtype=dtype))
    x = random(seed + 1, rows, tokens, 96, dtype=dtype)
    made, plain = compare(x, lambda ops, x: [ops.gates(linear, x)], fused)
    assert_close(made[0], plain[0], size=4)
    alone = fused.gates(linear, x[:1].contiguous())
    assert torch.equal(alone, made[0][:1])


def test_gates_of_a_linear_with_something_added(fused) -> None:
    class Adapted(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    linear = Adapted(96, 4).to(DEVICE).requires_grad_(False)
    x = random(0, 1, 5, 96, dtype=torch.float32)
    assert torch.equal(fused.gates(linear, x), PLAIN.gates(linear, x))


@pytest.mark.parametrize("width", [192, 4096])
def test_gelu_in_float8(fused, width: int) -> None:
    """Of the same function in another form, a number in a thousand may differ by its last bit."""
    x = random(1, 2, 30, width, dtype=HALF)
    made, exact = fused.gelu(x.clone(), float8=True), quantise_rows(PLAIN.gelu(x.clone()))
    assert torch.equal(made.scales, exact.scales)
    if not INTERPRETED:
        assert (made.numbers.float() != exact.numbers.float()).float().mean() <= 1e-3
    alone = fused.gelu(x[:1].clone(), float8=True)
    assert torch.equal(made.numbers[:1].view(torch.uint8), alone.numbers.view(torch.uint8))


@pytest.mark.parametrize("scale", [(), (6,)])
def test_gates_in_float8(fused, scale: tuple[int, ...]) -> None:
    x = quantise_rows(random(1, 2, 40, 192, dtype=HALF))
    parts = {"": (FLOAT8, (6, 192)), "_scale": (torch.float32, scale)}
    linear = Float8Linear(torch.nn.Linear(192, 6), parts).to(DEVICE)
    linear.bias = torch.nn.Parameter(random(2, 6, dtype=HALF))
    linear.weight.data = quantise_rows(random(3, 6, 192, dtype=HALF)).numbers
    linear.weight_scale.data = random(4, 6, dtype=torch.float32).abs()[: 6 if scale else 1] / 448
    linear.weight_scale.data = linear.weight_scale.data.view(scale)
    made = fused.gates(linear, x)
    assert made.dtype == HALF
    wide = (x.numbers.float() * x.scales) @ (linear.numbers.float() * linear.scale.view(-1, 1)).t()
    expected = 2 * torch.sigmoid(wide + linear.bias.float())
    torch.testing.assert_close(made.float(), expected, rtol=0.03, atol=0.02)
