"""Linears that sum in the order of AMX, the matrix instructions of the oracle's CPU.

The official pipeline, and ours after it, rounds to bfloat16 after every operation. Guidance
multiplies what one flipped rounding changes, step after step: two CPUs that sum a product's terms
in another order end 2 to 5 % apart, as far as either is from the same model in float32. With the
oracle's order of summing, our latents equal the oracle's bit for bit on any CPU; so these linears
tell an error of ours from a difference of machines.

Order: Intel's manual, TDPBF16PS. In a tile of 32 terms the even and the odd ones are summed apart,
then together, then to the total.
"""

import torch
from torch import Tensor, nn

TILE = 32


class AmxOrderLinear(nn.Module):
    """Takes the weights of a linear."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.out_features = linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        weight = self.weight.float()
        total = torch.zeros(len(rows), len(weight))
        for start in range(0, rows.shape[1], TILE):
            a, b = rows[:, start : start + TILE], weight[:, start : start + TILE]
            halves = [torch.zeros_like(total), torch.zeros_like(total)]
            for term in range(a.shape[1]):
                # A product of bfloat16s is exact in float64, so this is one fused multiply-add.
                product = a[:, term : term + 1].double() * b[:, term].double()
                halves[term % 2] = (halves[term % 2].double() + product).float()
            total = total + (halves[0] + halves[1])
        if x.is_contiguous():
            out = (total + self.bias.float()).to(x.dtype)
        else:
            out = total.to(x.dtype) + self.bias  # torch adds the bias of strided input apart
        return out.view(*x.shape[:-1], -1)


def in_amx_order(module: nn.Module) -> nn.Module:
    """Replace every linear within a module."""
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.Linear):
            module.set_submodule(name, AmxOrderLinear(child))
    return module
