"""What a block does between its matrix products: norms, modulation, gates, rotation.

The plain expressions here are the definition. `entracte.models.kernels` has the same operations,
with the same roundings, in one pass over memory each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from entracte.models.float8 import Activations

from .exchange import HeadRoom
from .modulation import Modulation, TokenTimesteps, add_gated, modulate
from .norm import rms_norm
from .rotary import Rotary, rotate


@dataclass(frozen=True, slots=True)
class GatedUpdate:
    """x += value * gate, the product rounded first, for all rows from `first` on.

    value: [rows - first, tokens, width]; it is overwritten. gate: [timesteps, width].
    """

    value: Tensor
    gate: Tensor
    timesteps: TokenTimesteps
    first: int = 0


class Elementwise(Protocol):
    """All tensors x are [rows, tokens, width], contiguous.

    float8: that a result may be in float8, with a scale for every row: the linears that it is for
    would quantise it first of all, to the same bits.
    """

    def add(self, x: Tensor, update: GatedUpdate) -> None:
        """Add an update to x, in place."""

    def defer(self, x: Tensor, update: GatedUpdate, /) -> GatedUpdate | None:
        """Add an update to x now, or return it, to be added by the next `modulated_norm` of x."""

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """x * (1 + scale) + shift, each step rounded. scale, shift: [width]."""

    def modulated_norm(
        self,
        x: Tensor,
        eps: float,
        modulations: Sequence[Modulation],
        update: GatedUpdate | None = None,
        first: int = 0,
        float8: Sequence[bool] = (),
    ) -> list[Activations]:
        """RMS norm of x under each modulation, rounded after the norm, its product and its sum.

        update: is added to x before, in place; its memory may be that of the result. first: the
            first row that is wanted. float8: of each modulation, or of none.
        """

    def normed_heads(
        self,
        x: Tensor,
        weight: Tensor,
        eps: float,
        heads: int,
        rotary: Rotary | None,
        room: HeadRoom | None = None,
    ) -> Tensor:
        """RMS norm with a weight [width], split into heads, and rotated if there are angles.

        Returns [rows, tokens, heads, width / heads]; x may be overwritten. room: is written to
        instead; what is returned is not to be used then.
        """

    def gates(self, linear: nn.Module, x: Activations) -> Tensor:
        """2 * sigmoid(linear(x)), each step rounded: [rows, tokens, heads]."""

    def gelu(self, x: Tensor, float8: bool = False) -> Activations:
        """GELU by tanh; x is overwritten."""

    def gated_heads(
        self, out: Tensor, gates: Tensor, kept: Tensor | None, float8: bool = False
    ) -> Activations:
        """Heads times their gates, as [rows, tokens, width].

        out: [rows, tokens, parts, heads / parts, head_dim], of any strides; it may be overwritten.
        kept: further rows that follow it, [rows, tokens, heads, head_dim]. gates:
        [all rows, tokens, heads].
        """


class PlainElementwise:
    """By torch's operators, one after another."""

    def add(self, x: Tensor, update: GatedUpdate) -> None:
        add_gated(x[update.first :], update.value, update.gate, update.timesteps.runs)

    def defer(self, x: Tensor, update: GatedUpdate) -> GatedUpdate | None:
        self.add(x, update)
        return None

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return (x * (1 + scale)).add_(shift)

    def modulated_norm(
        self,
        x: Tensor,
        eps: float,
        modulations: Sequence[Modulation],
        update: GatedUpdate | None = None,
        first: int = 0,
        float8: Sequence[bool] = (),  # noqa: ARG002
    ) -> list[Activations]:
        if update is not None:
            self.add(x, update)
        h = rms_norm(x[first:], eps)
        *earlier, last = modulations
        return [*(modulate(h, each, in_place=False) for each in earlier), modulate(h, last)]

    def normed_heads(
        self,
        x: Tensor,
        weight: Tensor,
        eps: float,
        heads: int,
        rotary: Rotary | None,
        room: HeadRoom | None = None,
    ) -> Tensor:
        split: Tensor = rms_norm(x, eps, weight).unflatten(-1, (heads, -1))
        made = split if rotary is None else rotate(split, rotary)
        if room is not None:
            room.fill(made)
        return made

    def gates(self, linear: nn.Module, x: Activations) -> Tensor:
        return torch.sigmoid(linear(x)).mul_(2)

    def gelu(self, x: Tensor, float8: bool = False) -> Activations:  # noqa: ARG002
        torch.ops.aten.gelu_(x, approximate="tanh")
        return x

    def gated_heads(
        self,
        out: Tensor,
        gates: Tensor,
        kept: Tensor | None,
        float8: bool = False,  # noqa: ARG002
    ) -> Activations:
        own = out.flatten(2, 3)
        whole = own if kept is None else torch.cat([own, kept])
        return whole.mul_(gates.unsqueeze(-1)).flatten(2)


PLAIN = PlainElementwise()
