"""Device memory that other processes map, for copies over the link between GPUs.

It is the driver's own rather than torch's: torch's allocator may grow segments in place, which
processes cannot share everywhere, and it opens the memory of others on their device, which would
take a context of some hundred megabytes there. The driver maps it into this device's addresses.
"""

import ctypes

import torch
from torch import Tensor

from entracte.errors import DeviceFault, OutOfMemory

_HANDLE_BYTES = 64  # of CUipcMemHandle
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_ENABLE_PEER_ACCESS = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_char * _HANDLE_BYTES),)


class _Memory:
    """Describes device memory to torch, which does not copy it."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }


class PeerMemory:
    """Allocates memory of one device that others may map, and maps theirs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._driver.cuIpcOpenMemHandle_v2.argtypes = (ctypes.c_void_p, _Handle, ctypes.c_uint)
        self._sizes: dict[int, int] = {}  # of what is allocated, by address

    @property
    def nbytes(self) -> int:
        """Bytes allocated now."""
        return sum(self._sizes.values())

    def allocate(self, nbytes: int) -> Tensor:
        """Memory [nbytes] uint8. Raises OutOfMemory."""
        address = ctypes.c_uint64()
        with torch.cuda.device(self._device):
            code = self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(nbytes))
            if code == _OUT_OF_MEMORY:  # what torch keeps for itself may be enough
                torch.cuda.empty_cache()
                code = self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(nbytes))
        if code == _OUT_OF_MEMORY:
            free, total = torch.cuda.mem_get_info(self._device)
            raise OutOfMemory(
                f"the device refused {nbytes:,} bytes: {free:,} of {total:,} are free"
            )
        _check(code, "allocating memory for other devices")
        self._sizes[address.value] = nbytes
        return self._tensor(address.value, nbytes)

    def owns(self, memory: Tensor) -> bool:
        """Whether memory was allocated here, and is not freed."""
        return memory.data_ptr() in self._sizes

    def free(self, memory: Tensor) -> None:
        """Free memory that no work uses any more; all views become unusable."""
        del self._sizes[memory.data_ptr()]
        with torch.cuda.device(self._device):
            code = self._driver.cuMemFree_v2(ctypes.c_uint64(memory.data_ptr()))
        _check(code, "freeing memory for other devices")

    def export(self, memory: Tensor) -> bytes:
        """The handle by which another process opens memory."""
        handle = _Handle()
        with torch.cuda.device(self._device):
            code = self._driver.cuIpcGetMemHandle(
                ctypes.byref(handle), ctypes.c_uint64(memory.data_ptr())
            )
        _check(code, "sharing memory with other processes")
        return bytes(handle) + memory.nbytes.to_bytes(8, "little")

    def open(self, exported: bytes) -> Tensor:
        """Another process's memory [nbytes] uint8; torch takes it for this device's."""
        handle = _Handle.from_buffer_copy(exported[:_HANDLE_BYTES])
        address = ctypes.c_uint64()
        with torch.cuda.device(self._device):
            code = self._driver.cuIpcOpenMemHandle_v2(
                ctypes.byref(address), handle, _ENABLE_PEER_ACCESS
            )
        _check(code, "opening the memory of another device")
        return self._tensor(address.value, int.from_bytes(exported[_HANDLE_BYTES:], "little"))

    def close(self, memory: Tensor) -> None:
        """Let go of another process's memory, once no copy reads it."""
        with torch.cuda.device(self._device):
            code = self._driver.cuIpcCloseMemHandle(ctypes.c_uint64(memory.data_ptr()))
        _check(code, "closing the memory of another device")

    def _tensor(self, address: int, nbytes: int) -> Tensor:
        with torch.inference_mode(False), torch.cuda.device(self._device):
            memory = torch.as_tensor(_Memory(address, nbytes), device=self._device)
        if memory.data_ptr() != address:
            raise DeviceFault("torch copied memory that it was to view")
        return memory


def _check(code: int, doing: str) -> None:
    if code:
        raise DeviceFault(f"{doing}: CUDA error {code}")
