"""Calls of modules with a few tensors from captured graphs: each is one launch."""

from functools import partial

import torch
from torch import Tensor, nn

from entracte.models.calls import Compute

from .capture import Capture, PlacedGraphs

# Above so many tokens a GPU computes a layer of text for longer than the host launches it: of 900
# tokens all layers took 60 ms instead of 62.
MOST_TOKENS = 512

# What the graphs of all layers for prompts of up to 256 tokens keep on a device, their share of the
# pool included, and what those for prompts of up to 512 keep beside them. Both may have come.
TEXT_BYTES = 166_000_000 + 222_000_000


class CapturedCalls:
    """`Call` from graphs, with the same bits. What is held, for every shape, are the inputs."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._shapes: dict[object, _CallShape] = {}

    def run(self, compute: Compute, module: nn.Module, *inputs: Tensor) -> Tensor:
        if inputs[0].shape[-2] > MOST_TOKENS:
            return compute(module, *inputs)
        key = (compute, *((each.shape, each.dtype) for each in inputs))
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = _CallShape(self._capture, inputs)
        return shape.run(compute, module, inputs)


class _CallShape:
    """The graphs of all modules for inputs of one shape, and the memory that they read."""

    def __init__(self, capture: Capture, inputs: tuple[Tensor, ...]) -> None:
        self._held = [torch.empty_like(each) for each in inputs]
        self._graphs = PlacedGraphs(capture)

    def run(self, compute: Compute, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        for to, given in zip(self._held, inputs, strict=True):
            to.copy_(given)
        self._graphs.run(module, None, partial(self._compute, compute, module))
        return self._held[0].clone()

    def _compute(self, compute: Compute, module: nn.Module) -> None:
        self._held[0].copy_(compute(module, *self._held))
