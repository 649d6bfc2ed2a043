"""A group of ranks of which only one exists: what it exchanges is counted, not sent."""

from collections.abc import Sequence

from torch import Tensor
from torch.distributed import ProcessGroup, Work

from entracte.parallel import Mesh, Ranks
from entracte.parallel.layout import Layout

from .meter import Counts


def counted_mesh(layout: Layout, rank: int, counts: Counts) -> Mesh:
    """The mesh of a rank in a layout, for tensors on the meta device."""
    everyone = _CountedGroup(rank, layout.ranks, counts)
    return Mesh(Ranks(everyone), Ranks(_CountedGroup(rank % layout.row, layout.row, counts)))


class _CountedGroup(ProcessGroup):
    """Stands in for torch's group."""

    def __init__(self, rank: int, size: int, counts: Counts) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        self._counts = counts

    def alltoall_base(
        self,
        _output: Tensor,
        _input: Tensor,
        _received: Sequence[int],
        sent: Sequence[int],
        *_options: object,
    ) -> Work:
        """Count what goes to other ranks."""
        if self.size() > 1:
            self._counts.exchanges += 1
            self._counts.exchanged += sum(sent) - sent[self.rank()]
        return _Done()


class _Done(Work):
    def wait(self, *_: object) -> bool:
        return True
