"""Memory of all ranks of a row that each of them reads and writes, over the link between GPUs."""

import logging
import pickle
from collections.abc import Sequence
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from entracte.models.transformer import HeadRoom

from .ranks import Ranks

logger = logging.getLogger(__name__)

ALIGNMENT = 1024

# A pickled handle of shared memory is shorter.
HANDLE_BYTES = 1024

# Ranks meet in each lane of a block on its own.
MEETINGS = 2

# Copies to other GPUs are limited by the link. More programs would keep more of the GPU from the
# products beside them.
COPYING_PROGRAMS = 16

# A flag is looked at about once a microsecond: after some ten minutes a rank is given up.
TRIES = 2**29


class Mapped(Protocol):
    """Memory of all ranks of a row, and meetings of these. device: of the own memory."""

    ranks: Ranks
    device: torch.device

    def view(self, rank: int, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor in a rank's memory, from byte `start` on."""

    def copy(self, x: Tensor, to: HeadRoom) -> None:
        """Copy every x[i] of [ranks, rows, tokens, width] to the part of rank i."""

    def meet(self, meeting: int) -> None:
        """What follows comes after all that was before it on any rank.

        Meetings of different numbers are independent.
        """

    def break_off(self) -> None:
        """Wait for nobody from now on, from any thread: what is computed is not to be used."""


class RowMemory:
    """As much memory on every rank, mapped by all; every rank of a row has to make it.

    Meetings are held on the GPU, in the current stream. Raises RuntimeError on all ranks if one of
    them cannot map another's memory.
    """

    def __init__(self, ranks: Ranks, nbytes: int, device: torch.device) -> None:
        size = ranks.size
        self.ranks = ranks
        self.device = device
        self._flags_bytes = -(-4 * MEETINGS * size // ALIGNMENT) * ALIGNMENT
        own = torch.zeros(self._flags_bytes + nbytes, dtype=torch.uint8, device=device)
        self._held = torch.zeros(MEETINGS, dtype=torch.int32, device=device)
        self._broken_off = torch.zeros(1, dtype=torch.int32, device=device)
        self._one = torch.ones(1, dtype=torch.int32, pin_memory=True)
        self._own_stream = torch.cuda.Stream(device, priority=-1)  # that nothing else waits in
        torch.cuda.synchronize(device)  # the flags are zero before any rank writes them
        self._memory = _map_all(ranks, own)
        addresses = [memory.data_ptr() for memory in self._memory]
        self._addresses = torch.tensor(addresses, dtype=torch.int64, device=device)
        self._own_flags = own[: self._flags_bytes].view(torch.int32)

    def view(self, rank: int, start: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        first = self._flags_bytes + start
        nbytes = prod(shape) * dtype.itemsize
        return self._memory[rank][first : first + nbytes].view(dtype).view(*shape)

    def copy(self, x: Tensor, to: HeadRoom) -> None:
        from entracte.models.kernels.copies import copy_to

        copy_to(x, to, COPYING_PROGRAMS)

    def meet(self, meeting: int) -> None:
        from entracte.models.kernels.meeting_triton import meeting_kernel

        meeting_kernel[(1,)](
            self._addresses,
            self._own_flags,
            self._held,
            self._broken_off,
            meeting,
            self.ranks.rank,
            TRIES,
            RANKS=self.ranks.size,
            num_warps=1,
        )

    def break_off(self) -> None:
        # Where it was made in inference mode it can be written in no other, in any thread.
        with torch.cuda.stream(self._own_stream), torch.inference_mode():
            self._broken_off.copy_(
                self._one, non_blocking=True
            )  # no kernel, which may have to wait


def _map_all(ranks: Ranks, own: Tensor) -> list[Tensor]:
    """Every rank's memory, in this process."""
    handle = pickle.dumps((own.untyped_storage()._share_cuda_(), own.storage_offset()))
    assert len(handle) <= HANDLE_BYTES
    told = torch.zeros(HANDLE_BYTES, dtype=torch.uint8)
    told[: len(handle)] = torch.frombuffer(bytearray(handle), dtype=torch.uint8)
    handles = _all_told(ranks, told.to(own.device)).cpu()
    failed, found = torch.zeros(1, dtype=torch.int32, device=own.device), [own] * ranks.size
    for rank in range(ranks.size):
        if rank != ranks.rank:
            try:
                found[rank] = _mapped(handles[rank].numpy().tobytes(), own)
            except RuntimeError as error:
                logger.warning("the memory of rank %d cannot be mapped: %s", rank, error)
                failed += 1
    if _all_told(ranks, failed).any():
        raise RuntimeError("the GPUs cannot map each other's memory")
    return found


def _all_told(ranks: Ranks, mine: Tensor) -> Tensor:
    """Every rank's tensor, in the order of ranks."""
    received = mine.new_empty((ranks.size, *mine.shape))
    ranks.all_gather(mine, received).wait()
    return received


def _mapped(handle: bytes, own: Tensor) -> Tensor:
    """Memory of another process, of the size of this one's."""
    (_, *shared), offset = pickle.loads(handle)
    storage = torch.UntypedStorage._new_shared_cuda(own.device.index, *shared)
    return torch.empty(0, dtype=own.dtype, device=own.device).set_(storage, offset, own.shape, (1,))
