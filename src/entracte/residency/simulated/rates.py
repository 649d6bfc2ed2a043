"""How fast the simulated accelerator is."""

from dataclasses import dataclass

from entracte.residency.backends.protocol import Direction
from entracte.residency.formats import Expansion, Quantisation
from entracte.residency.merge import WeightMerge


@dataclass(frozen=True, slots=True)
class SimulatedRates:
    """Speeds, in bytes or floating-point operations per second; the defaults resemble an H200.

    pageable: copies between the device and memory that is not pinned. disk: what the host writes
    into its memory is taken to be read from a file.
    """

    bytes_in_per_second: float = 55e9
    bytes_out_per_second: float = 55e9
    bytes_within_per_second: float = 4.3e12
    bytes_from_peer_per_second: float = 368e9
    flops_per_second: float = 790e12
    pageable_bytes_per_second: float = 2.8e9
    disk_bytes_per_second: float = 7e9

    def copy_seconds(self, direction: Direction, nbytes: int, pageable: bool = False) -> float:
        """How long a copy takes."""
        if pageable:
            return nbytes / self.pageable_bytes_per_second
        match direction:
            case "in":
                return nbytes / self.bytes_in_per_second
            case "out":
                return nbytes / self.bytes_out_per_second
            case "within":
                return nbytes / self.bytes_within_per_second
            case "peer":
                return nbytes / self.bytes_from_peer_per_second

    def merge_seconds(self, each: WeightMerge) -> float:
        """How long a merge takes: by its arithmetic or by its traffic, whichever is slower."""
        changes = [change for change, _ in each.adapters]
        flops = sum(change.flops for change in changes)
        nbytes = each.weight.nbytes + each.out.nbytes
        nbytes += sum(part.nbytes for change in changes for part in change.tensors.values())
        return max(flops / self.flops_per_second, nbytes / self.bytes_within_per_second)

    def expand_seconds(self, each: Expansion) -> float:
        """How long an expansion takes: by what it reads and writes."""
        nbytes = each.out.nbytes + sum(part.nbytes for part in each.stored.values())
        return nbytes / self.bytes_within_per_second

    def quantise_seconds(self, each: Quantisation) -> float:
        """How long it takes to quantise: by reading twice, for the scales too, and writing."""
        nbytes = 2 * each.weight.nbytes + sum(part.nbytes for part in each.out.values())
        return nbytes / self.bytes_within_per_second

    def read_seconds(self, nbytes: int) -> float:
        """How long a read from a file takes."""
        return nbytes / self.disk_bytes_per_second


DEFAULT = SimulatedRates()
