"""The CUDA backend: three streams, events between them, pinned host memory, fused merges."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from entracte.errors import OutOfMemory
from entracte.residency.formats import Expansion, Quantisation, join_neighbours
from entracte.residency.kernels.groups import KernelWork, group_for_kernel
from entracte.residency.merge import WeightMerge

from .board import Board, open_shared_memory
from .cuda_stream import CudaClock, CudaMergeProgram, CudaStream, device_errors
from .peer_memory import PeerMemory
from .peers import NoPeers, Peers
from .pinned import CudaRegistrar, HostAllocator, Registrar
from .protocol import Checks, HostMemory, MergeProgram, NoChecks, Stream, Task, Traffic

if TYPE_CHECKING:
    from entracte.residency.kernels.lora_merge_triton import FusedMerges

logger = logging.getLogger(__name__)


class CudaBackend:
    """A CUDA device. `compute` is the stream that is current when it is made.

    registrar: pins host memory (default: CUDA does). peers: its group (default: none).
    """

    def __init__(
        self,
        device: torch.device,
        registrar: Registrar | None = None,
        peers: Peers | None = None,
    ) -> None:
        if device.type != "cuda":
            raise ValueError(f"{device} is not a CUDA device")
        index = torch.cuda.current_device() if device.index is None else device.index
        self.name = "cuda"
        self.device = torch.device("cuda", index)
        self.unified = False
        self.traffic = Traffic()
        self.checks: Checks = NoChecks()
        self.peers: Peers = peers or NoPeers()
        lock = Lock()
        self._compute = torch.cuda.current_stream(self.device)
        self._merges = torch.cuda.Stream(self.device)
        self._clock = CudaClock(self._compute)
        self.compute: Stream = CudaStream(self._compute, self.traffic, lock, self._clock)
        self.copies: Stream = CudaStream(
            torch.cuda.Stream(self.device), self.traffic, lock, self._clock
        )
        self.on_demand: Stream = CudaStream(
            torch.cuda.Stream(self.device), self.traffic, lock, self._clock
        )
        self.merges: Stream = CudaStream(self._merges, self.traffic, lock, self._clock)
        self._memory: dict[int, Tensor] = {}  # by address
        self._shared = open_shared_memory(self.peers)
        self.board: Board | None = self._shared
        self._peer_memory = PeerMemory(self.device) if self.peers.size > 1 else None
        self._host = HostAllocator(registrar or CudaRegistrar(self.device), self._shared)
        self._reader = ThreadPoolExecutor(
            1, "entracte-reader", initializer=torch.cuda.set_device, initargs=(self.device,)
        )
        self._fused = _fused_merges(self.device)

    def allocate(self, nbytes: int, again: Tensor | None = None) -> Tensor:
        """See Backend. The side streams start later work only after all earlier compute work."""
        try:
            with torch.inference_mode(False), torch.cuda.stream(self._compute):
                if again is None:
                    memory = torch.empty(nbytes, dtype=torch.uint8, device=self.device)
                else:
                    memory = again
                    memory.untyped_storage().resize_(nbytes)
        except torch.OutOfMemoryError as error:
            free, total = torch.cuda.mem_get_info(self.device)
            raise OutOfMemory(
                f"the device refused {nbytes:,} bytes: {free:,} of {total:,} are free"
            ) from error
        # The allocator may return memory that earlier compute work still uses, relying on its
        # order.
        ready = self.compute.record()
        for stream in (self.copies, self.on_demand, self.merges):
            stream.wait(ready)
        if nbytes > 0:
            self._memory[memory.data_ptr()] = memory
        return memory

    def free(self, memory: Tensor) -> None:
        """See Backend. All views of the memory become unusable."""
        if memory.nbytes == 0:
            return
        if self._peer_memory is not None and self._peer_memory.owns(memory):
            self.compute.record().synchronize()  # the driver does not order it after work
            self._peer_memory.free(memory)
            return
        known = self._memory.pop(memory.data_ptr(), None)
        if known is None:
            raise ValueError("this backend did not allocate this memory")
        # Its next user is ordered after all compute work so far.
        # Views in modules must not keep the memory alive.
        known.untyped_storage().resize_(0)

    @property
    def bytes_for_peers(self) -> int:
        return 0 if self._peer_memory is None else self._peer_memory.nbytes

    def allocate_for_peers(self, nbytes: int) -> Tensor:
        """See Backend. It is new memory, which no work uses."""
        return self._among_peers().allocate(nbytes)

    def export(self, memory: Tensor) -> bytes:
        return self._among_peers().export(memory)

    def open_peer(self, handle: bytes) -> Tensor:
        return self._among_peers().open(handle)

    def close_peer(self, memory: Tensor) -> None:
        self._among_peers().close(memory)

    def _among_peers(self) -> PeerMemory:
        if self._peer_memory is None:
            raise RuntimeError("this rank has no peers")
        return self._peer_memory

    def allocate_host(self, nbytes: int, pinned: bool, name: str | None = None) -> HostMemory:
        return self._host.allocate(nbytes, pinned, name)

    def pin(self, memory: HostMemory, fresh: bool) -> bool:
        return self._host.pin(memory.bytes, fresh)

    def free_host(self, memory: HostMemory) -> None:
        for stream in (self.compute, self.copies, self.on_demand, self.merges):
            stream.record().synchronize()
        self._host.free(memory)

    def prepare_merges(
        self,
        merges: Sequence[WeightMerge],
        copies: Sequence[tuple[Tensor, Tensor]],
        expansions: Sequence[Expansion] = (),
        quantisations: Sequence[Quantisation] = (),
    ) -> MergeProgram:
        """See Backend. The host does not wait, but the first merges compile a kernel: seconds."""
        fused: tuple[FusedMerges, ...] = ()
        work = KernelWork([], list(merges), list(expansions))
        if self._fused is not None:
            with device_errors("preparing merges"), torch.cuda.stream(self._merges):
                work = group_for_kernel(merges, expansions, self.device)
                fused = tuple(
                    self._fused(each.merges, self.device, stored=each.stored)
                    for each in work.groups
                )
        return CudaMergeProgram(
            fused,
            tuple(work.merges),
            tuple(copies),
            tuple(join_neighbours(work.expansions)),
            tuple(quantisations),
            len(merges),
            len(expansions),
            self._merges,
        )

    @contextmanager
    def computing(self) -> Iterator[None]:
        with torch.cuda.device(self.device), torch.cuda.stream(self._compute):
            yield

    def read_ahead(self, task: Callable[[], None]) -> Task:
        return self._reader.submit(task)

    def now(self) -> float:
        return time.perf_counter()

    def set_clock(self) -> None:
        self._clock.set()

    def synchronize(self) -> None:
        with device_errors("waiting for the device"):
            torch.cuda.synchronize(self.device)

    def close(self) -> None:
        """Free everything, once all tasks and all work are done. Raises DeviceFault."""
        self._reader.shutdown()
        self.synchronize()
        for memory in list(self._memory.values()):
            self.free(memory)
        self._host.close()
        if self._shared is not None:
            self._shared.close()


def _fused_merges(device: torch.device) -> "type[FusedMerges] | None":
    """The class that prepares fused merges; None, with a warning, if unavailable."""
    with torch.cuda.device(device):
        multiplies_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if not multiplies_bfloat16:
        reason = "the device does not multiply bfloat16"
    else:
        try:
            from entracte.residency.kernels.lora_merge_triton import FusedMerges

            return FusedMerges
        except ImportError as error:
            reason = f"Triton cannot be imported ({error})"
    logger.warning("Adapters will be merged several times slower than they could be: %s", reason)
    return None
