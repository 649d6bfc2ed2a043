"""Components with their weights, without a device manager."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from entracte.checkpoints.loading import FileSource, build_component, prepare_module
from entracte.checkpoints.lora import LoraFile
from entracte.checkpoints.sources import ComponentSource
from entracte.models.component import Component
from entracte.models.registry import LTX_2_3, ModelVersion
from entracte.residency.merge import Change, Changes, merge


def load_component(
    source: ComponentSource,
    device: torch.device,
    dtype: torch.dtype,
    version: ModelVersion = LTX_2_3,
) -> Component:
    """All weights on one device."""
    module = prepare_module(build_component(source, version), device)
    files = FileSource(source, version, dtype)
    state = {}
    for name, spec in files.specs.items():
        state[name] = torch.empty(spec.shape, dtype=spec.dtype)
        files.read(name, state[name])
    module.load_state_dict({name: t.to(device) for name, t in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def read_changes(lora: LoraFile, component: str = "transformer") -> dict[str, Change]:
    """What a LoRA does to a component, with its numbers."""
    found = {}
    for name, change in lora.changes[component].items():
        tensors = {part: torch.empty_like(it, device="cpu") for part, it in change.tensors.items()}
        for part, tensor in tensors.items():
            lora.read(component, name, part, tensor)
        found[name] = change.over(tensors)
    return found


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
