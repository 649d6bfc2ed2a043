"""What a component's owner says of it: how it is built, where its tensors and its adapters' come
from, and which weights each phase of its work uses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from entracte.errors import ResidencyError

from .formats import ProductFormat, WeightFormat
from .merge import Changes


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor as it is merged into, and computed with unless that is in another form.

    mergeable: whether an adapter can be merged into it; not into integers that the module itself
        makes weights of.
    stored: how it is stored, where that is in another form: it is expanded when it arrives.
    computed: how it is computed with, where that is in another form: it is quantised when it is
        expanded and merged into.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    mergeable: bool = True
    stored: "Stored | None" = None
    computed: "Computed | None" = None

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def parts(self) -> Mapping[str, "TensorSpec"]:
        """What is stored of it, by what follows its own name in the names of the stored tensors."""
        return {"": self} if self.stored is None else self.stored.tensors

    @property
    def computed_parts(self) -> Mapping[str, "TensorSpec"]:
        """What is computed with of it, by what follows its own name in the names of the tensors."""
        return {"": self} if self.computed is None else self.computed.tensors

    @property
    def used_as_stored(self) -> bool:
        """Whether, without adapters, it is computed with as it is stored."""
        if self.computed is None:
            return self.stored is None
        return self.stored is not None and self.computed.takes == self.stored.format


@dataclass(frozen=True, slots=True)
class Stored:
    """A parameter as it is stored: one tensor or several.

    tensors: by what follows the parameter's name in theirs, such as "" for the weight `x.weight`
        itself and "_scale" for a tensor `x.weight_scale`.
    """

    format: WeightFormat
    tensors: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Computed:
    """A parameter as it is computed with: one tensor or several.

    tensors: by what follows the parameter's name in theirs.
    takes: the format that is stored in just these tensors, if any: what is stored in it is computed
        with as it is.
    """

    format: ProductFormat
    tensors: Mapping[str, TensorSpec]
    takes: WeightFormat | None = None


class WeightSource(Protocol):
    """A component's tensors. They never change. `specs` is by parameter name."""

    specs: Mapping[str, TensorSpec]

    def read(self, name: str, out: Tensor) -> None:
        """Write the named tensor, as it is stored, into `out`: host memory of its shape and dtype.

        Of a parameter that is stored in another form, the names are those of its stored tensors.
        """


NO_SPECS: Mapping[str, TensorSpec] = MappingProxyType({})


class TensorSource:
    """Tensors that are in memory already, or views of a mapped file; none is copied but by `read`.

    dtype: what floating-point ones will be held in (default: what they are in).
    expanded: of parameters that are stored in another form, how they are computed with.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        dtype: torch.dtype | None = None,
        expanded: Mapping[str, TensorSpec] = NO_SPECS,
    ) -> None:
        self._tensors = tensors
        stored = {name + end for name, spec in expanded.items() for end in spec.parts}
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(
                dtype if dtype and tensor.is_floating_point() else tensor.dtype,
                tuple(tensor.shape),
            )
            for name, tensor in tensors.items()
            if name not in stored
        } | dict(expanded)

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
    build_stored: makes the module that computes from weights as they are stored, where any are in
        another form: its parameters, or buffers, are the stored tensors, by their names. Without it
        such a component cannot be used in mode dynamic.
    """

    name: str
    build: Callable[[], nn.Module]
    sources: Mapping[str, WeightSource]
    blocks: str | None = None
    build_stored: Callable[[], nn.Module] | None = None


class AdapterSource(Protocol):
    """What one adapter does to one component. It never changes: other numbers are another adapter.

    changes: by parameter. Only their sizes are looked at, so their tensors may be on the meta
    device; the numbers are read once for every place that a plan holds them at.
    """

    @property
    def changes(self) -> Changes: ...

    def read(self, parameter: str, part: str, out: Tensor) -> None:
        """Write one tensor of a change into `out`, host memory of its shape and dtype.

        parameter, part: its keys in `changes` and in the change's `tensors`.
        """


# An adapter for a component, by the names of both.
OpenAdapter = Callable[[str, str], AdapterSource]


@dataclass(frozen=True, slots=True)
class MemoryAdapter:
    """An adapter whose tensors are in memory already, or views of a mapped file."""

    changes: Changes

    def read(self, parameter: str, part: str, out: Tensor) -> None:
        out.copy_(self.changes[parameter].tensors[part])


def in_memory(changes: Callable[[str], Changes]) -> OpenAdapter:
    """Adapters of one component whose tensors are in memory; `changes` finds them by name."""
    return lambda _, name: MemoryAdapter(changes(name))


def no_adapters(component: str, name: str) -> AdapterSource:
    """For components that have none."""
    raise ResidencyError(
        f"no adapter {name!r} of {component}: this manager was made without adapters"
    )


@dataclass(frozen=True, slots=True)
class Adapter:
    """A named adapter and the strength at which it is merged."""

    name: str
    strength: float


@dataclass(frozen=True, slots=True)
class WeightSet:
    """One of a component's sources, with adapters merged in their order; none is the plain source.

    Most components have one source, `base`. Two experts of one shape are two sources.
    """

    adapters: tuple[Adapter, ...] = ()
    source: str = "base"
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Weight sets are looked up at every hand-over of a block.
        object.__setattr__(self, "_hash", hash((self.adapters, self.source)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def plain(self) -> "WeightSet":
        """The same source without adapters."""
        return WeightSet((), self.source)

    def __str__(self) -> str:
        merged = "".join(f" + adapter@{each.strength:g}" for each in self.adapters)
        return self.source + merged


BASE = WeightSet()


@dataclass(frozen=True, slots=True)
class WeightPhase:
    """A stretch of work with one weight set: so many sweeps over all blocks, each block once."""

    weights: WeightSet
    sweeps: int = 1

    def __post_init__(self) -> None:
        if self.sweeps < 0:
            raise ResidencyError(f"a phase cannot have {self.sweeps} sweeps")


def distinct(phases: tuple[WeightPhase, ...]) -> tuple[WeightSet, ...]:
    """The weight sets of some phases, in the order of first use."""
    return tuple(dict.fromkeys(phase.weights for phase in phases))
