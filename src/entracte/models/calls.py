"""How modules that are called with a few tensors are run: as they are, or from graphs."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

# Computes with a module's weights on tensors; the result has the shape and dtype of the first.
Compute = Callable[..., Tensor]


class Call(Protocol):
    """Calls `compute` with a module and its inputs."""

    def __call__(self, compute: Compute, module: nn.Module, *inputs: Tensor) -> Tensor: ...


def call_plainly(compute: Compute, module: nn.Module, *inputs: Tensor) -> Tensor:
    """At once; the way for every device."""
    return compute(module, *inputs)
