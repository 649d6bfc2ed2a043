"""Names of buffers, and of their contents."""

from dataclasses import dataclass
from typing import Literal

from .spec import WeightSet

Tier = Literal["device", "host", "peer"]

# weights: a unit's, at a place of its own. kept: an expanded or merged unit's, beside its base.
# slot: whichever block comes next. stored slot: the same, as it is stored. factors: an adapter's,
# for a unit. factor slot: for whichever unit comes next. scratch: of whichever unit is expanded and
# merged next, before it is quantised. staging: between a file and the device.
Role = Literal[
    "weights", "kept", "slot", "stored slot", "factors", "factor slot", "scratch", "staging"
]


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """What a buffer holds: a unit's weights under a weight set, or an adapter's factors for it.

    stored: the plain weights are as they are stored, which is in another form than they are
    computed with.
    """

    unit: int
    weights: WeightSet | None = None
    adapter: str | None = None
    stored: bool = False

    @property
    def of_weights(self) -> WeightSet:
        """The weight set; raises ValueError for factors."""
        if self.weights is None:
            raise ValueError("these are an adapter's factors")
        return self.weights

    @property
    def plain(self) -> "BlockWeights":
        """The unit's weights without adapters, as they are computed with."""
        return BlockWeights(self.unit, self.of_weights.plain)


@dataclass(frozen=True, slots=True)
class BufferKey:
    """A buffer's name. `index`: the unit, or the number of the slot.

    of: which copy of the weights on the device, which weight set's on the host, which rank's among
    peers, whose factors.
    """

    tier: Tier
    role: Role
    index: int
    of: int | str | WeightSet = 0


# Where weights are expanded and merged that are computed with in another form.
SCRATCH = BufferKey("device", "scratch", 0)

# What the reader thread reads into, on its way to the device.
STAGING = BufferKey("host", "staging", 0)
