"""A linear that computes from its weight as it is stored."""

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.models.transformer.linear import Linear, quicker_in_float32


class StoredFormat(Protocol):
    """A format of the weights of linears."""

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        """Write a weight into `out` from its stored tensors, by the ends of their names."""


class StoredLinear(Linear):
    """x W^T + b, where W is expanded to the dtype of x at every use.

    Its parameters are the stored tensors, such as `weight` and `weight_scale`.
    stored: those, by what follows `weight` in their names.
    """

    def __init__(
        self, plain: nn.Linear, weight_format: StoredFormat, stored: Mapping[str, Tensor]
    ) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        self.format, self.ends = weight_format, tuple(stored)
        for end, tensor in stored.items():
            self.register_parameter(f"weight{end}", nn.Parameter(tensor, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        weight = x.new_empty(self.out_features, self.in_features)
        self.format.expand({end: self.get_parameter(f"weight{end}") for end in self.ends}, weight)
        if not quicker_in_float32(x):
            return F.linear(x, weight, self.bias)
        bias = None if self.bias is None else self.bias.float()
        return F.linear(x.float(), weight.float(), bias).to(x.dtype)


def compute_from_stored(
    module: nn.Module, weights: Mapping[str, tuple[StoredFormat, Mapping[str, Tensor]]]
) -> None:
    """Have a module without storage compute from weights as they are stored.

    weights: by parameter, each the weight of a linear, which another one takes the place of: its
        format and its stored tensors, on the meta device.
    """
    for name, (weight_format, stored) in weights.items():
        path = name.removesuffix(".weight")
        plain = module.get_submodule(path)
        if not isinstance(plain, nn.Linear):
            raise TypeError(f"{path} is a {type(plain).__name__}")
        owner, _, leaf = path.rpartition(".")
        with torch.device("meta"):
            linear = StoredLinear(plain, weight_format, stored)
        module.get_submodule(owner).register_module(leaf, linear)
