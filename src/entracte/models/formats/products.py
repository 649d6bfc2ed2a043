"""Linears that multiply in float8, and which of a transformer's do: precision `fp8`.

Approximate: weights and activations keep three bits behind the point. Attention, norms, biases, and
the first and last blocks stay in bfloat16, as in the official files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from entracte.models.float8 import (
    FLOAT8,
    PRODUCT_MULTIPLE,
    Float8Rows,
    product,
    quantise_by,
    quantise_rows,
)
from entracte.models.transformer.linear import Linear

from . import Format
from .float8 import ScaledFloat8
from .rows import Part
from .schemes import format_in

# Of a weight's tensors, the scale that a file gives the linear's inputs.
INPUT_SCALE = "_input_scale"

# The official files' choice of linears, for files that do not choose.
CHOICE = "fp8"


class Float8Linear(Linear):
    """x W^T + b in float8: `float8.product`.

    Its parameters are `weight`, `weight_scale`, `bias`, and `weight_input_scale` where a file gives
    its inputs a scale; else their scales are found, one for every row.
    """

    def __init__(self, plain: nn.Linear, parts: Mapping[str, Part]) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        for end, (dtype, shape) in parts.items():
            parameter = nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)
            self.register_parameter(f"weight{end}", parameter)
        self.scales_inputs = INPUT_SCALE in parts
        self.takes_float8 = not self.scales_inputs

    def forward(self, x: Tensor | Float8Rows) -> Tensor:
        """[..., in] -> [..., out]"""
        if isinstance(x, Tensor):
            if self.scales_inputs:
                x = quantise_by(x, self.get_parameter(f"weight{INPUT_SCALE}").float().view(()))
            else:
                x = quantise_rows(x)
        return product(x, self.numbers, self.scale, self.bias)

    @property
    def numbers(self) -> Tensor:
        """[out, in] float8_e4m3fn"""
        return self.weight.view(FLOAT8)

    @property
    def scale(self) -> Tensor:
        """[] or [out] float32"""
        return self.get_parameter("weight_scale").float().squeeze()


def multiply_in_float8(module: nn.Module, weights: Mapping[str, Mapping[str, Part]]) -> None:
    """Have linears of a module without storage multiply in float8.

    weights: by parameter, each the weight of a linear: its tensors, by the ends of their names.
    """
    for name, parts in weights.items():
        path = name.removesuffix(".weight")
        plain = module.get_submodule(path)
        if not isinstance(plain, nn.Linear):
            raise TypeError(f"{path} is a {type(plain).__name__}")
        owner, _, leaf = path.rpartition(".")
        with torch.device("meta"):
            linear = Float8Linear(plain, parts)
        module.get_submodule(owner).register_module(leaf, linear)


def multiplies(stored: Format | None) -> bool:
    """Whether a weight in this format is multiplied as it is stored."""
    return isinstance(stored, ScaledFloat8) and stored.dtype is FLOAT8 and not stored.full_precision


def float8_parts(
    parameter: str, shape: tuple[int, ...], blocks: str, count: int
) -> Mapping[str, Part] | None:
    """The tensors of a weight that is quantised to be multiplied in float8; None: it is not.

    blocks, count: as in `format_in`.
    """
    fits = len(shape) == 2 and all(length % PRODUCT_MULTIPLE == 0 for length in shape)
    if not fits or format_in(CHOICE, parameter, blocks, count) is None:
        return None
    return {"": (FLOAT8, shape), "_scale": (torch.float32, shape[:1])}
