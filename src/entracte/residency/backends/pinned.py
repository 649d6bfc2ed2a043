"""Host memory of exactly the requested size, pinned if the system allows it.

torch's own pinned memory is rounded up to a power of two; this is rounded up to a page.
"""

import contextlib
import logging
import mmap
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from entracte.errors import DeviceFault, OutOfMemory
from entracte.units import size

from .protocol import HostMemory

if TYPE_CHECKING:
    from .shared import SharedMemory

logger = logging.getLogger(__name__)

# If the system has this flag; without it the memory would count as shared.
PRIVATE: Mapping[str, int] = MappingProxyType(
    {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
)
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device of the process


class Registrar(Protocol):
    """Pins existing memory."""

    def register(self, address: int, nbytes: int) -> str | None:
        """None, or why the memory was not pinned."""

    def unregister(self, address: int) -> str | None:
        """None, or why the memory is still pinned."""


class CudaRegistrar:
    """Pins memory for a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def register(self, address: int, nbytes: int) -> str | None:
        return self._outcome(torch.cuda.cudart().cudaHostRegister(address, nbytes, PORTABLE))

    def unregister(self, address: int) -> str | None:
        return self._outcome(torch.cuda.cudart().cudaHostUnregister(address))

    def _outcome(self, code: int) -> str | None:
        if int(code) == 0:
            return None
        # CUDA would report the error again at the next kernel launch.
        with contextlib.suppress(torch.AcceleratorError):
            torch.ones(1, device=self._device)
        return f"CUDA error {int(code)}"


class HostAllocator:
    """Allocates and frees host memory; shared: what ranks have in common."""

    def __init__(self, registrar: Registrar, shared: "SharedMemory | None" = None) -> None:
        self._registrar = registrar
        self._shared = shared
        self._pinned: dict[int, Tensor] = {}  # by address; kept alive while they are pinned
        self._warned = False

    def allocate(self, nbytes: int, pinned: bool, name: str | None = None) -> HostMemory:
        """Zeros [nbytes] uint8, aligned to a page; or what ranks have by this name, where they
        share memory, which is pinned later. Raises OutOfMemory.

        The memory is pageable if pinning is not wanted or is refused. Pageable memory takes space
        only as it is written. Pinning takes time, about a second for several gigabytes.
        """
        if name is not None and self._shared is not None:
            return HostMemory(self._shared.named(name, nbytes), pinned and nbytes > 0, name)
        memory = _anonymous(nbytes)
        return HostMemory(memory, pinned and nbytes > 0 and self.pin(memory, fresh=True))

    def free(self, memory: HostMemory) -> None:
        """Unpin memory that no device uses any more; it is freed with its last view, and shared
        memory once no rank has it. Raises DeviceFault.
        """
        address = memory.bytes.data_ptr()
        if address in self._pinned:
            refusal = self._registrar.unregister(address)
            if refusal is not None:
                raise DeviceFault(f"host memory cannot be unpinned: {refusal}")
            del self._pinned[address]
        if memory.name is not None and self._shared is not None:
            self._shared.unmap(memory.bytes, empty=self._shared.leave(memory.name))

    def close(self) -> None:
        """Unpin everything that no device uses any more. Raises DeviceFault."""
        for memory in list(self._pinned.values()):
            self.free(HostMemory(memory, pinned=True))

    def pin(self, memory: Tensor, fresh: bool) -> bool:
        """Pin memory; returns whether the system allowed it. fresh: it may be written."""
        if fresh:
            memory.zero_()  # by several threads, quicker than CUDA touching page after page
        refusal = self._registrar.register(memory.data_ptr(), memory.nbytes)
        if refusal is None:
            self._pinned[memory.data_ptr()] = memory
            return True
        logger.log(
            logging.DEBUG if self._warned else logging.WARNING,
            "The system refused to pin %s of host memory (%s). Copies between it and the "
            "device will be around 20 times slower, and will stop the host meanwhile.",
            size(memory.nbytes, 2),
            refusal,
        )
        self._warned = True
        return False


def _anonymous(nbytes: int) -> Tensor:
    with torch.inference_mode(False):
        if nbytes == 0:
            return torch.empty(0, dtype=torch.uint8)
        try:
            pages = mmap.mmap(-1, nbytes, **PRIVATE)
        except OSError as error:
            raise OutOfMemory(f"the host has no {nbytes:,} bytes of memory: {error}") from error
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        return torch.frombuffer(pages, dtype=torch.uint8)
