"""The formats that weights are stored in: how each expands, and the linear that computes from it.

A format is a file here, with what the device manager needs of it (`residency.WeightFormat`) and a
linear; its reader is in `checkpoints`.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from .float8 import Float8

__all__ = ["Float8", "StoredFormat", "compute_from_stored"]


class StoredFormat(Protocol):
    """A format of the weights of linears."""

    def linear(self, plain: nn.Linear) -> nn.Linear:
        """A linear on the meta device like a plain one, whose tensors are those that are stored."""


def compute_from_stored(module: nn.Module, formats: Mapping[str, StoredFormat]) -> None:
    """Have a module without storage compute from weights as they are stored.

    formats: by parameter, each the weight of a linear, which another one takes the place of.
    """
    for name, weight_format in formats.items():
        path = name.removesuffix(".weight")
        plain = module.get_submodule(path)
        if not isinstance(plain, nn.Linear):
            raise TypeError(f"{path} is a {type(plain).__name__}")
        owner, _, leaf = path.rpartition(".")
        with torch.device("meta"):
            linear = weight_format.linear(plain)
        module.get_submodule(owner).register_module(leaf, linear)
