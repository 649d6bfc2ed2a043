"""Adapters applied beside a module's weights instead of merged into them."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.errors import ResidencyError

from .merge import Change, Dora, Factors, Full, Hadamard, Kronecker

# Changes and strengths of the adapters that are applied, by parameter name.
Unmerged = Mapping[str, Sequence[tuple[Change, float]]]


# What kinds that cannot be applied are called.
KINDS: Mapping[type[Change], str] = {Hadamard: "LoHa", Kronecker: "LoKr", Dora: "DoRA"}


class LoraLinear(nn.Linear):
    """A linear with adapters applied beside its weight: y = Wx + b + sum of s * B(Ax).

    Full differences of the weight and of the bias are applied in the same way. `weight` and `bias`
    are the linear's alone.
    """

    def __init__(
        self,
        linear: nn.Linear,
        of_weight: Sequence[tuple[Change, float]],
        of_bias: Sequence[tuple[Change, float]],
    ) -> None:
        nn.Module.__init__(self)  # a linear's own would make weights
        self.linear = linear
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._of_weight = of_weight
        self._of_bias = of_bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        y: Tensor = self.linear(x)
        for change, strength in self._of_weight:
            y = torch.add(y, _applied(change, x), alpha=strength * _scale(change))
        for change, strength in self._of_bias:
            (diff,) = change.tensors.values()
            y = torch.add(y, diff.to(y.dtype), alpha=strength * _scale(change))
        return y


def adapt(module: nn.Module, prefix: str, changes: Unmerged) -> None:
    """Replace the linears of a module that adapters change; names begin with `prefix`."""
    for path in dict.fromkeys(name.rpartition(".")[0] for name in changes):
        linear = module.get_submodule(path.removeprefix(prefix))
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{path} is a {type(linear).__name__}")
        of_weight, of_bias = (changes.get(f"{path}.{leaf}", ()) for leaf in ("weight", "bias"))
        owner, _, leaf = path.removeprefix(prefix).rpartition(".")
        adapted = LoraLinear(linear, of_weight, of_bias)
        module.get_submodule(owner).register_module(leaf, adapted)


def check_applicable(template: nn.Module, changes: Iterable[tuple[str, Change]]) -> None:
    """Raise ResidencyError where a change cannot be applied beside its parameter.

    Low-rank changes and full differences of linears can.
    """
    for name, change in changes:
        owner = template.get_submodule(name.rpartition(".")[0])
        if not isinstance(change, Factors | Full):
            reason = f"is adapted by {KINDS[type(change)]}"
        elif not isinstance(owner, nn.Linear):
            reason = f"belongs to a {type(owner).__name__}"
        else:
            continue
        raise ResidencyError(
            f"mode dynamic applies low-rank adapters and full differences of linears; {name} "
            f"{reason}: use mode fused, resident, snapshot or original"
        )


def _applied(change: Change, x: Tensor) -> Tensor:
    """A change of a weight, but for its scale and strength, times x."""
    match change:
        case Factors(down, up):
            return F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))
        case Full(diff):
            return F.linear(x, diff.to(x.dtype))
    raise TypeError(f"a {type(change).__name__} change cannot be applied unmerged")


def _scale(change: Change) -> float:
    return change.scale if isinstance(change, Factors | Full) else 1.0
