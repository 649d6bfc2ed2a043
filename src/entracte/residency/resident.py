"""The simplest device manager: every component is loaded once and stays on the device."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from .weight_sets import ReadFactors, WeightSetKey, WeightSets

M = TypeVar("M", bound=nn.Module)


class ResidentManager:
    """Lends components to stages; loads each when it is first borrowed.

    loaders: how to load each component, by name.
    adapted: the component that has weight sets. read_factors: reads an adapter for it.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], nn.Module]],
        adapted: str,
        read_factors: ReadFactors,
    ) -> None:
        self._loaders = loaders
        self._adapted = adapted
        self._read_factors = read_factors
        self._loaded: dict[str, nn.Module] = {}
        self._weight_sets: WeightSets | None = None

    @contextmanager
    def borrow(self, name: str, kind: type[M]) -> Iterator[M]:
        """A component, for the duration of a stage. `kind` is the class that it has."""
        yield _checked(self._get(name), kind)

    @contextmanager
    def borrow_weight_set(self, key: WeightSetKey, kind: type[M]) -> Iterator[M]:
        """The adapted component under a weight set, for the duration of a stage."""
        base = self._get(self._adapted)
        if self._weight_sets is None:
            self._weight_sets = WeightSets(base, self._read_factors)
        yield _checked(self._weight_sets.get(key), kind)

    def loaded(self) -> list[str]:
        """The components that are on the device now."""
        return sorted(self._loaded)

    def _get(self, name: str) -> nn.Module:
        if name not in self._loaded:
            self._loaded[name] = self._loaders[name]()
        return self._loaded[name]


def _checked(module: nn.Module, kind: type[M]) -> M:
    if not isinstance(module, kind):
        raise TypeError(f"asked for {kind.__name__}, but the component is {type(module).__name__}")
    return module
