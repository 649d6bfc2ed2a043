"""A module under several weight sets, all of them resident."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from .merge import Factors, merge


@dataclass(frozen=True, slots=True)
class Adapter:
    """A named adapter and the strength at which it is merged."""

    name: str
    strength: float


# Which adapters at which strengths, in the order of merging; empty is the base.
WeightSetKey = tuple[Adapter, ...]

# The factors of an adapter, by the name of the module whose weight they change.
ReadFactors = Callable[[str], Mapping[str, Factors]]


class WeightSets:
    """A base module and merged versions of it, made on demand and kept.

    The base is never changed. A merged version shares every parameter that no adapter touches.
    At most `capacity` merged versions are kept; the one that was not asked for longest goes first.
    """

    def __init__(self, base: nn.Module, read_factors: ReadFactors, capacity: int = 2) -> None:
        self._base = base
        self._read_factors = read_factors
        self._capacity = capacity
        self._merged: OrderedDict[WeightSetKey, nn.Module] = OrderedDict()

    def get(self, key: WeightSetKey) -> nn.Module:
        """The module under a weight set. Adapters at strength 0 are no part of it."""
        key = tuple(adapter for adapter in key if adapter.strength != 0)
        if not key:
            return self._base
        if key not in self._merged:
            while len(self._merged) >= self._capacity:
                self._merged.popitem(last=False)
            adapters = [(self._read_factors(each.name), each.strength) for each in key]
            self._merged[key] = merged_copy(self._base, adapters)
        self._merged.move_to_end(key)
        return self._merged[key]


def merged_copy(
    base: nn.Module, adapters: Sequence[tuple[Mapping[str, Factors], float]]
) -> nn.Module:
    """A module like `base` with adapters merged in, sharing the parameters they do not touch."""
    shared = [*base.parameters(), *base.buffers()]
    twin = copy.deepcopy(base, {id(tensor): tensor for tensor in shared})
    touched = dict.fromkeys(name for factors, _ in adapters for name in factors)
    for name in touched:
        module = twin.get_submodule(name)
        weight = merge(
            base.get_parameter(f"{name}.weight"),
            [(factors[name], strength) for factors, strength in adapters if name in factors],
        )
        module.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
    return twin
