"""Numbers that are not finite, found at the end of the stage that made them."""

import torch
from torch import Tensor

from entracte.errors import NotFinite


def require_finite(stage: str, *made: Tensor) -> None:
    """Raise NotFinite, naming the stage, unless all numbers are finite. Waits for the device once.

    A tensor's least and greatest number are finite only if all are: both are NaN where one number
    is. Unlike a mask or torch.aminmax of a strided tensor they take no memory, and unlike a sum
    they do not overflow.
    """
    extremes = torch.stack(
        [extreme for tensor in made for extreme in (tensor.amin(), tensor.amax())]
    )
    if extremes.isfinite().logical_not().any().item():
        raise NotFinite(f"{stage} made numbers that are not finite, so there is no video")
