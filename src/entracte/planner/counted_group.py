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
        given: Tensor,
        _received: Sequence[int],
        sent: Sequence[int],
        *_options: object,
    ) -> Work:
        """Count what goes to other ranks; no sizes stand for equal ones."""
        own = sent[self.rank()] if sent else given.nbytes // self.size()
        return self._count(given.nbytes - own)

    def _allgather_base(self, _output: Tensor, given: Tensor, *_options: object) -> Work:
        """Count what goes to other ranks."""
        return self._count(given.nbytes * (self.size() - 1))

    def _count(self, nbytes: int) -> Work:
        self._counts.exchanges += 1
        self._counts.exchanged += nbytes
        return _Done()


class _Done(Work):
    def wait(self, *_: object) -> bool:
        return True
