"""The elementwise work of the transformer's blocks by fused kernels."""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor, nn

from entracte.models.float8 import FLOAT8, Activations, Float8Rows
from entracte.models.formats.products import Float8Linear
from entracte.models.transformer.elementwise import PLAIN, GatedUpdate
from entracte.models.transformer.exchange import HeadRoom
from entracte.models.transformer.linear import Linear
from entracte.models.transformer.modulation import Modulation
from entracte.models.transformer.rotary import Rotary

from .elementwise_triton import (
    EXACT,
    gated_heads_kernel,
    gelu_kernel,
    head_gates_kernel,
    modulated_kernel,
    modulated_norm_kernel,
    normed_heads_kernel,
)

# How many tokens one program makes the gates of. The order of a sum depends on it.
GATE_TOKENS = 32

# How many pieces of a token's width are on their way to it at once: little else hides that a
# program waits for each.
GATE_STAGES = 5


class FusedElementwise:
    """`Elementwise` in one kernel for each operation.

    Equal to the plain expressions bit for bit but where a sum is inside: the sums of norms and
    gates are in an order of their own, so about one bfloat16 number in a million differs by its
    last bit. That order does not depend on the number of rows or tokens.
    """

    def add(self, x: Tensor, update: GatedUpdate) -> None:
        _launch_norm(x, 0.0, (), update, 0, [])

    def defer(self, _: Tensor, update: GatedUpdate) -> GatedUpdate | None:
        return update

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        x, width = x.contiguous(), x.shape[-1]
        out = torch.empty_like(x)
        modulated_kernel[(x.numel() // width,)](
            x,
            scale,
            shift,
            out,
            width,
            COLUMNS=triton.next_power_of_2(width),
            num_warps=_warps(width),
            **EXACT,
        )
        return out

    def modulated_norm(
        self,
        x: Tensor,
        eps: float,
        modulations: Sequence[Modulation],
        update: GatedUpdate | None = None,
        first: int = 0,
        float8: Sequence[bool] = (),
    ) -> list[Activations]:
        wanted = x[first:]
        small = float8 or [False] * len(modulations)
        outs: list[Activations] = [
            _empty_rows(wanted.shape, x.device) if each else torch.empty_like(wanted)
            for each in small[1:]
        ]
        # A token's update is read before its result is written.
        reused = update is not None and update.first == first
        if small[0]:
            outs.insert(0, _empty_rows(wanted.shape, x.device))
        elif update is not None and reused:
            outs.insert(0, update.value)
        else:
            outs.insert(0, torch.empty_like(wanted))
        _launch_norm(x, eps, modulations, update, first, outs)
        return outs

    def normed_heads(
        self,
        x: Tensor,
        weight: Tensor,
        eps: float,
        heads: int,
        rotary: Rotary | None,
        room: HeadRoom | None = None,
    ) -> Tensor:
        rows, tokens, width = x.shape
        half = width // heads // 2
        cos, sin = (x, x) if rotary is None else (rotary.cos, rotary.sin)
        split: Tensor = x.unflatten(-1, (heads, -1))
        to, parts = (split, 1) if room is None else (room.parts[0], len(room.parts))
        addresses = None if room is None else room.addresses
        normed_heads_kernel[(rows * tokens,)](
            x,
            weight,
            cos,
            sin,
            to,
            x if addresses is None else addresses,
            *to.stride()[:2],
            0 if room is None or room.memory is None else room.memory.stride(0),
            tokens,
            heads,
            eps,
            PART=heads // parts,
            ADDRESSED=addresses is not None,
            HALF=half,
            HEADS=triton.next_power_of_2(heads),
            HALVES=triton.next_power_of_2(half),
            ROTATED=rotary is not None,
            ALIGNED=1 if room is None else room.aligned(half),
            num_warps=_warps(width),
            **EXACT,
        )
        return split

    def gates(self, linear: nn.Module, x: Activations) -> Tensor:
        float8 = isinstance(x, Float8Rows)
        if type(linear) is not (Float8Linear if float8 else Linear):
            return PLAIN.gates(linear, x)  # it adds something of its own, or takes it otherwise
        rows, tokens, width = x.shape
        heads = linear.out_features
        numbers, scales = _memory(x)
        weight = linear.numbers if isinstance(linear, Float8Linear) else linear.weight
        by_head = linear.scale if isinstance(linear, Float8Linear) else weight
        out = torch.empty((rows, tokens, heads), dtype=linear.bias.dtype, device=numbers.device)
        head_gates_kernel[(triton.cdiv(rows * tokens, GATE_TOKENS),)](
            numbers,
            weight,
            linear.bias,
            scales,
            by_head,
            int(by_head.numel() > 1),
            out,
            rows * tokens,
            heads,
            width,
            TOKENS=GATE_TOKENS,
            HEADS=max(16, triton.next_power_of_2(heads)),
            DEPTH=128,
            FLOAT8=float8,
            num_warps=4,
            num_stages=GATE_STAGES,
            **EXACT,
        )
        return out

    def gelu(self, x: Tensor, float8: bool = False) -> Activations:
        if not float8:
            return PLAIN.gelu(x)
        width = x.shape[-1]
        out = _empty_rows(x.shape, x.device)
        gelu_kernel[(x.numel() // width,)](
            x,
            out.numbers,
            out.scales,
            width,
            COLUMNS=triton.next_power_of_2(width),
            num_warps=max(1, min(16, width // 1024)),
        )
        return out

    def gated_heads(
        self, out: Tensor, gates: Tensor, kept: Tensor | None, float8: bool = False
    ) -> Activations:
        attending, tokens, parts, part, head_dim = out.shape
        rows, heads = len(gates), parts * part
        shape = (rows, tokens, heads * head_dim)
        gated = _empty_rows(shape, out.device) if float8 else out.new_empty(shape)
        gated_heads_kernel[(rows * tokens,)](
            out,
            *out.stride()[:4],
            out if kept is None else kept,
            attending * tokens * heads * head_dim,
            gates,
            *_memory(gated),
            attending,
            tokens,
            heads,
            PART=part,
            HEAD_DIM=head_dim,
            HEADS=triton.next_power_of_2(heads),
            PLACES=triton.next_power_of_2(head_dim),
            KEPT=kept is not None,
            FLOAT8=float8,
            num_warps=_warps(heads * head_dim),
            **EXACT,
        )
        return gated


def _launch_norm(
    x: Tensor,
    eps: float,
    modulations: Sequence[Modulation],
    update: GatedUpdate | None,
    first: int,
    outs: Sequence[Activations],
) -> None:
    rows, tokens, width = x.shape
    # What a kernel does not read is any tensor.
    one, two = (*modulations, None, None)[:2]
    numbers = None if one is None else one.timesteps.numbers
    gate_numbers = None if update is None else update.timesteps.numbers
    modulated_norm_kernel[(rows * tokens,)](
        x,
        x if update is None else update.value,
        x if update is None else update.gate,
        0 if update is None else update.gate.stride(0),
        x if gate_numbers is None else gate_numbers,
        0 if update is None else update.first * tokens,
        *(_memory(outs[0]) if outs else (x, x)),
        x if one is None else one.scale,
        x if one is None else one.shift,
        *(_memory(outs[1]) if len(outs) > 1 else (x, x)),
        x if two is None else two.scale,
        x if two is None else two.shift,
        0 if one is None else one.scale.stride(0),
        0 if two is None else two.scale.stride(0),
        x if numbers is None else numbers,
        first * tokens,
        tokens,
        width,
        eps,
        UPDATED=update is not None,
        GATE_NUMBERED=gate_numbers is not None,
        NUMBERED=numbers is not None,
        OUTPUTS=len(outs),
        FLOAT8=len(outs) > 0 and isinstance(outs[0], Float8Rows),
        SECOND_FLOAT8=len(outs) > 1 and isinstance(outs[1], Float8Rows),
        COLUMNS=triton.next_power_of_2(width),
        num_warps=_warps(width),
        **EXACT,
    )


def _empty_rows(shape: Sequence[int], device: torch.device) -> Float8Rows:
    return Float8Rows(
        torch.empty(shape, dtype=FLOAT8, device=device),
        torch.empty((*shape[:-1], 1), dtype=torch.float32, device=device),
    )


def _memory(x: Activations) -> tuple[Tensor, Tensor]:
    """Where a kernel writes numbers, and scales if there are any."""
    return (x.numbers, x.scales) if isinstance(x, Float8Rows) else (x, x)


def _warps(width: int) -> int:
    """So many that each thread has 16 numbers of a row, or fewer."""
    return max(1, min(8, width // 512))
