"""Muon: momentum whose steps are made orthogonal, for the weights of hidden layers.

After Keller Jordan et al., https://kellerjordan.github.io/posts/muon. Steps have the size that
AdamW's have (arXiv 2502.16982), so that both share a learning rate.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Of the quintic iteration that pulls singular values towards 1, from Jordan's post.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
STEP_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """For weights of convolutions and linears, taken as matrices of a row per output channel."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient. A closure is not called."""
        del closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight.grad)
                kept = state["momentum"]
                kept.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(kept, group["momentum"]).flatten(1)
                by_shape[ahead.shape[0], ahead.shape[1]].append((weight, ahead))
            for shape, members in by_shape.items():
                steps = orthogonal(torch.stack([ahead for _, ahead in members]))
                size = group["lr"] * STEP_SIZE * max(shape) ** 0.5
                for (weight, _), step in zip(members, steps, strict=True):
                    weight.sub_(step.view(weight.shape).to(weight.dtype), alpha=size)


def orthogonal(x: Tensor) -> Tensor:
    """The matrices [n, rows, columns] with all singular values pulled to about 1.

    On a GPU in bfloat16, which is enough for it.
    """
    a, b, c = COEFFICIENTS
    wide = x.shape[1] <= x.shape[2]
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT
