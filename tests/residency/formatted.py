"""The small module with weights stored in other forms than it computes with.

Block 2 is stored as it is; the other blocks' inner linears are 8-bit integers with a scale for
every row, their outer ones, and what is outside the blocks, float8 without scales.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entracte.residency import (
    Backend,
    ComponentSpec,
    DeviceManager,
    Residency,
    Stored,
    TensorSource,
    TensorSpec,
    WeightPhase,
)

from . import toy
from .toy import ADAPTERS, Net, build, make_net

AS_IT_IS = 2


@dataclass(frozen=True)
class Float8:
    name = "float8"
    elementwise = True

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> None:
        return None

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        out.copy_(stored[""])


@dataclass(frozen=True)
class Int8:
    name = "int8 with scales"
    elementwise = False

    def tiles(self, stored: Mapping[str, Tensor], columns: int) -> None:
        return None

    def expand(self, stored: Mapping[str, Tensor], out: Tensor) -> None:
        out.copy_(stored[""].float() * stored["_scale"])


class StoredLinear(nn.Linear):
    """Computes from a weight as it is stored."""

    def __init__(self, linear: nn.Linear, stored: Stored) -> None:
        super().__init__(
            linear.in_features, linear.out_features, device="meta", dtype=linear.weight.dtype
        )
        self.format, self.ends = stored.format, tuple(stored.tensors)
        for end, part in stored.tensors.items():
            empty = torch.empty(part.shape, dtype=part.dtype, device="meta")
            self.register_parameter(f"weight{end}", nn.Parameter(empty, requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        parts = {end: self.get_parameter(f"weight{end}") for end in self.ends}
        weight = x.new_empty(self.out_features, self.in_features)
        self.format.expand(parts, weight)
        return F.linear(x, weight, self.bias)


@cache
def stored_tensors() -> tuple[dict[str, Tensor], dict[str, TensorSpec]]:
    """What a file holds, and how the parameters in other forms are computed with."""
    tensors, expanded = dict(make_net().state_dict()), {}
    for path, module in make_net().named_modules():
        name, formats = f"{path}.weight", Int8() if path.endswith("inner") else Float8()
        if not isinstance(module, nn.Linear) or path.startswith(f"blocks.{AS_IT_IS}."):
            continue
        weight, parts = tensors[name], {}
        if isinstance(formats, Int8):
            scale = weight.float().abs().amax(1, keepdim=True) / 127
            tensors[f"{name}_scale"] = scale
            tensors[name] = (weight.float() / scale).round().to(torch.int8)
            parts["_scale"] = TensorSpec(torch.float32, tuple(scale.shape))
        else:
            tensors[name] = weight.to(torch.float8_e4m3fn)
        parts[""] = TensorSpec(tensors[name].dtype, tuple(weight.shape))
        expanded[name] = TensorSpec(
            torch.bfloat16, tuple(weight.shape), stored=Stored(formats, parts)
        )
    return tensors, expanded


def make_source() -> TensorSource:
    tensors, expanded = stored_tensors()
    return TensorSource(tensors, expanded=expanded)


def expanded_net() -> Net:
    """With the weights that are computed with, by hand."""
    net, (tensors, expanded) = make_net(), stored_tensors()
    for name, spec in expanded.items():
        assert spec.stored is not None
        parts = {end: tensors[name + end] for end in spec.stored.tensors}
        spec.stored.format.expand(parts, net.get_parameter(name).data)
    return net


def build_stored() -> Net:
    net = build()
    for name, spec in stored_tensors()[1].items():
        path = name.removesuffix(".weight")
        owner, _, leaf = path.rpartition(".")
        linear = net.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        assert spec.stored is not None
        net.get_submodule(owner).register_module(leaf, StoredLinear(linear, spec.stored))
    return net


def make_spec() -> ComponentSpec:
    return ComponentSpec("net", build, {"base": make_source()}, "blocks", build_stored)


def make_manager(backend: Backend, wanted: Residency, **options: object) -> DeviceManager:
    return DeviceManager([make_spec()], backend, wanted, **({"adapters": ADAPTERS} | options))


@cache
def expected(phases: tuple[WeightPhase, ...]) -> list[Tensor]:
    """What `toy.perform` must give."""
    return toy.expected(phases, net=expanded_net)
