"""Numbers that are not finite, found at the end of the stage that made them."""

import torch
from torch import Tensor

from entracte.errors import NotFinite


def require_finite(stage: str, *made: Tensor) -> None:
    """Raise NotFinite, naming the stage, unless all numbers are finite. Waits for the device once.

    A sum takes no memory beside its terms, and is not finite as soon as one of them is not.
    """
    total = torch.stack([tensor.sum() for tensor in made]).sum()
    if not total.isfinite().item():
        raise NotFinite(f"{stage} made numbers that are not finite, so there is no video")
