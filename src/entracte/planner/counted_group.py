"""A group of ranks of which only one exists: what it exchanges is counted, not sent."""

from collections.abc import Sequence

from torch import Tensor
from torch.distributed import ProcessGroup, Work

from entracte.parallel import Mesh, Ranks

from .meter import Counts


def counted_mesh(ranks: int, rank: int, counts: Counts) -> Mesh:
    """The mesh of one of so many ranks, for tensors on the meta device."""

    def connect(_name: str, place: int, size: int) -> ProcessGroup:
        return _CountedGroup(place, size, counts)

    return Mesh.open(Ranks(connect("all", rank, ranks)), connect)


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
        self._counts.exchanges += 1
        self._counts.exchanged += sum(sent) - sent[self.rank()]
        return _Done()


class _Done(Work):
    def wait(self, *_: object) -> bool:
        return True
