"""Exchanges between processes, one a device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroup, ProcessGroupGloo, Store, Work

# From a group's name, this process's place in it, and its size, to the group.
Connect = Callable[[str, int, int], ProcessGroup]


def connecting(store: Store, device: torch.device, timeout: timedelta) -> Connect:
    """Groups of processes that share a store: over NCCL for GPUs, over gloo for CPUs.

    device: this process's. timeout: after which an exchange fails.
    """

    def connect(name: str, rank: int, size: int) -> ProcessGroup:
        of_group = PrefixStore(name, store)
        group = ProcessGroup(of_group, rank, size)
        if device.type != "cuda":
            gloo = ProcessGroupGloo(of_group, rank, size, timeout)
            group._register_backend(device, ProcessGroup.BackendType.GLOO, gloo)
            return group
        from torch._C._distributed_c10d import ProcessGroupNCCL  # not in torch for CPUs

        options = ProcessGroupNCCL.Options()
        options._timeout = timeout
        nccl = ProcessGroupNCCL(of_group, rank, size, options)
        group._register_backend(device, ProcessGroup.BackendType.NCCL, nccl)
        return group

    return connect


@dataclass(frozen=True, slots=True)
class Ranks:
    """Processes that exchange tensors, one a device, as one of them sees them.

    handle: torch's group, over NCCL for GPUs and gloo for CPUs.
    Tensors are only copied, as bytes, so that every dtype arrives as it was.
    """

    handle: ProcessGroup

    @property
    def rank(self) -> int:
        return self.handle.rank()

    @property
    def size(self) -> int:
        return self.handle.size()

    def to_all(
        self,
        sent: Tensor,
        received: Tensor,
        giving: Sequence[int] = (),
        getting: Sequence[int] = (),
    ) -> Work:
        """Begin to give every rank its part of `sent`, and to receive theirs, in order of ranks.

        giving, getting: how much of the first dimension of `sent` is for each rank, and of
        `received` from it; equal parts where they are left out, which all ranks do or none. Both
        are contiguous. On a GPU, `wait` makes the current stream wait.
        """
        return self.handle.alltoall_base(
            _bytes(received), _bytes(sent), list(getting), list(giving)
        )

    def all_gather(self, mine: Tensor, received: Tensor) -> Work:
        """Begin to receive every rank's tensor, [ranks, *its shape]; both are contiguous."""
        into, out = received.flatten().view(torch.uint8), mine.flatten().view(torch.uint8)
        return self.handle._allgather_base(into, out)

    def from_rank(self, rank: int, made: Tensor | None, like: Tensor) -> Tensor:
        """What a rank made, on every rank; `made` is None on the others.

        like: of its dtype and device. The host waits for its shape.
        """
        header = torch.zeros(8, dtype=torch.int64, device=like.device)
        if made is not None:
            header[: made.dim() + 1] = torch.tensor([made.dim(), *made.shape])
        self.handle.broadcast(header, rank).wait()
        dims, *shape = header.tolist()
        told = like.new_empty(shape[:dims]) if made is None else made.contiguous()
        self.handle.broadcast(told.view(-1).view(torch.uint8), rank).wait()
        return told

    def exchange(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Give every rank its part, and return what every rank gave this one.

        parts: one a rank, of one dtype. shapes: of what comes, by the rank that it comes from.
        """
        dtype, device = parts[0].dtype, parts[0].device
        sent = torch.cat([part.reshape(-1) for part in parts]).view(torch.uint8)
        width = dtype.itemsize
        sizes = [torch.Size(shape).numel() for shape in shapes]
        received = torch.empty(sum(sizes), dtype=dtype, device=device)
        self.handle.alltoall_base(
            received.view(torch.uint8),
            sent,
            [size * width for size in sizes],
            [part.numel() * width for part in parts],
        ).wait()
        split = received.split(sizes)
        return [flat.view(*shape) for flat, shape in zip(split, shapes, strict=True)]

    def gather(self, mine: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Every rank's tensor, in the order of ranks. shapes: of each."""
        return self.exchange([mine] * self.size, shapes)


def _bytes(tensor: Tensor) -> Tensor:
    """[n, bytes of one]"""
    if not len(tensor):
        return tensor.view(torch.uint8).view(0, 1)
    return tensor.view(len(tensor), -1).view(torch.uint8)
