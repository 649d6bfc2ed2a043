"""Components with their weights, without a device manager."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from entracte.checkpoints.loading import FileSource, build_component, prepare_module
from entracte.checkpoints.sources import ComponentSource
from entracte.models.component import Component
from entracte.residency.merge import Factors, merge


def load_component(source: ComponentSource, device: torch.device, dtype: torch.dtype) -> Component:
    """All weights on one device."""
    module = prepare_module(build_component(source), device)
    files = FileSource(source, dtype)
    state = {}
    for name, spec in files.specs.items():
        state[name] = torch.empty(spec.shape, dtype=spec.dtype)
        files.read(name, state[name])
    module.load_state_dict({name: t.to(device) for name, t in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def merged_copy(
    base: nn.Module, adapters: Sequence[tuple[Mapping[str, Factors], float]]
) -> nn.Module:
    """A copy of a module with adapters merged in."""
    twin = copy.deepcopy(base)
    for name in dict.fromkeys(name for factors, _ in adapters for name in factors):
        weight = twin.get_submodule(name).weight
        merge(
            base.get_submodule(name).weight,
            [(factors[name], strength) for factors, strength in adapters if name in factors],
            out=weight,
        )
    return twin
