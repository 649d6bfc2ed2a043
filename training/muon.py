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

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient. A closure is not called."""
        del closure
        for group in self.param_groups:
            weights = [each for each in group["params"] if each.grad is not None]
            gradients = [each.grad for each in weights]
            for each in weights:
                if not self.state[each]:
                    self.state[each]["momentum"] = torch.zeros_like(each.grad)
            kept = [self.state[each]["momentum"] for each in weights]
            torch._foreach_lerp_(kept, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, kept, group["momentum"])
            by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for index, each in enumerate(ahead):
                by_shape[tuple(each.flatten(1).shape)].append(index)
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for shape, members in by_shape.items():
                steps = orthogonal(torch.stack([ahead[index].flatten(1) for index in members]))
                size = group["lr"] * STEP_SIZE * max(shape) ** 0.5
                torch._foreach_sub_(
                    [weights[index] for index in members],
                    [
                        step.view(weights[index].shape)
                        for index, step in zip(members, steps.float(), strict=True)
                    ],
                    alpha=size,
                )


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
