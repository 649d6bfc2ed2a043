"""RMS norm, with the rounding of torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(x: Tensor, eps: float, weight: Tensor | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps), times the weight; computed in float32, rounded once.

    x: [..., width]; weight: [width]. On a GPU torch has one kernel for it. On the CPU it makes six
    passes over memory, each into a new buffer, so there the same arithmetic is done in place:
    `docs/reference/measurements.md` has the difference.
    """
    if x.is_cuda:
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    wide = x.float()
    inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    wide = wide * inverse if wide is x else wide.mul_(inverse)
    if weight is not None:
        wide.mul_(weight)
    return wide.to(x.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps, self.weight)
