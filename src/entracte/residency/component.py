"""A component as its owner describes it: how to build it, and where its tensors come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as it will be held; `quantised`: its values need more than a cast to be weights."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    quantised: bool = False

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class WeightSource(Protocol):
    """A component's tensors by parameter name. They never change."""

    specs: Mapping[str, TensorSpec]

    def read(self, name: str, out: Tensor) -> None:
        """Write the named tensor into `out`, host memory of its shape and dtype."""


class TensorSource:
    """Tensors that are in memory already, or views of a mapped file; none is copied but by `read`.

    dtype: what floating-point ones will be held in (default: what they are in).
    """

    def __init__(self, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
        self._tensors = tensors
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(
                dtype if dtype and tensor.is_floating_point() else tensor.dtype,
                tuple(tensor.shape),
            )
            for name, tensor in tensors.items()
        }

    def read(self, name: str, out: Tensor) -> None:
        out.copy_(self._tensors[name])


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """A module with weights.

    build: makes the module with its parameters on the meta device; buffers that no source holds
        are on their device and ready. Called once for every place that its weights are used at.
    sources: by name; all have the same tensors.
    blocks: the name of the module's list of blocks, which its forward iterates over from first to
        last. Without it the component is one piece.
    """

    name: str
    build: Callable[[], nn.Module]
    sources: Mapping[str, WeightSource]
    blocks: str | None = None
