"""Which weights: a component's own, or with adapters merged in at given strengths."""

from dataclasses import dataclass, field

from entracte.errors import ResidencyError


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
