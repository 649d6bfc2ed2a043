"""Components with their weights, without a device manager."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from entracte.checkpoints.loading import FileSource, build_component, prepare_module
from entracte.checkpoints.sources import ComponentSource
from entracte.models.component import Component
from entracte.residency.merge import Changes, merge


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


def merged_copy(base: nn.Module, adapters: Sequence[tuple[Changes, float]]) -> nn.Module:
    """A copy of a module with adapters merged in."""
    twin = copy.deepcopy(base)
    for name in dict.fromkeys(name for changes, _ in adapters for name in changes):
        merge(
            base.get_parameter(name),
            [(changes[name], strength) for changes, strength in adapters if name in changes],
            out=twin.get_parameter(name),
        )
    return twin
