"""What one rank of a group makes for all."""

from collections.abc import Callable, Sequence

from torch import Tensor

from entracte.parallel import Mesh

Make = Callable[[], tuple[Tensor, ...]]


def once(
    mesh: Mesh | None, work: Sequence[Make], tensors: int, like: Tensor
) -> list[tuple[Tensor, ...]]:
    """Each piece of work is done by one rank, in turns, and told to all.

    All ranks call it with as many pieces. tensors: that each makes. like: of their dtype and
    device. What a rank raises is raised there; others go on waiting for it.
    """
    if mesh is None:
        return [make() for make in work]
    ranks = mesh.everyone
    mine = {number: work[number]() for number in range(ranks.rank, len(work), ranks.size)}
    nothing = (None,) * tensors
    return [
        tuple(
            ranks.from_rank(number % ranks.size, each, like) for each in mine.get(number, nothing)
        )
        for number in range(len(work))
    ]
