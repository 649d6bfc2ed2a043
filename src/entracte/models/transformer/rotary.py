"""Rotary position embedding in the split layout (halves of a head rotate against each other)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rotary:
    """Angles of every token and head: cos and sin, each [tokens, heads, head_dim / 2]."""

    cos: Tensor
    sin: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> "Rotary":
        return Rotary(self.cos.to(device, dtype), self.sin.to(device, dtype))


def rotary_table(
    positions: Tensor, max_positions: Sequence[int], heads: int, width: int, theta: float
) -> Rotary:
    """Angles for token positions.

    positions: [axes, tokens] float32, in the units of `max_positions` (seconds or pixels).
    A position is mapped to -1..1 over its axis and multiplied by frequencies that grow
    geometrically from pi/2 to theta*pi/2; the frequencies take turns over the axes along the
    width. Where they do not fill it, the first pairs do not rotate.
    Source: RoFormer (arXiv 2104.09864), with the axial layout of LTX-Video (arXiv 2501.00103).
    """
    axes, tokens = positions.shape
    per_axis = width // (2 * axes)
    exponents = torch.linspace(0.0, 1.0, per_axis, dtype=torch.float64)
    frequencies = (torch.pow(theta, exponents) * (math.pi / 2)).float()
    limits = torch.tensor(max_positions, dtype=torch.float32)[:, None]
    fraction = (positions.cpu().float() / limits) * 2 - 1  # [axes, tokens]
    angles = fraction.T[:, None, :] * frequencies[None, :, None]  # [tokens, per_axis, axes]
    angles = angles.flatten(1)
    still = width // 2 - angles.shape[1]
    cos = torch.cat([torch.ones(tokens, still), angles.cos()], dim=1)
    sin = torch.cat([torch.zeros(tokens, still), angles.sin()], dim=1)
    return Rotary(cos.view(tokens, heads, -1), sin.view(tokens, heads, -1))


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotate x [rows, tokens, heads, head_dim] by a table of its dtype."""
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, rotary.cos, out=out_first).addcmul_(second, rotary.sin, value=-1)
    torch.mul(second, rotary.cos, out=out_second).addcmul_(first, rotary.sin)
    return out
