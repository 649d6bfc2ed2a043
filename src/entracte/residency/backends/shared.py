"""Host memory that all ranks of a group share, and their board, in one anonymous file.

The file has no name, so that nothing of it outlives the processes: every rank opens that of the
first by way of /proc. It begins with the table of entries; then comes memory, each piece at a place
of its own, since a file may have holes.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from threading import Lock
from typing import Self, cast

import torch
from torch import Tensor

from entracte.errors import OutOfMemory, PeerFailed

from .peers import Peers

_RECORD, _RECORDS = 1024, 8192
_TABLE = _RECORD * (_RECORDS + 1)
_HEAD = struct.Struct("<QQQ")  # records ever used, end of the file, entries made ready so far
_READY = 255  # else what fills it: the rank and 1, or 0 for nobody
_ENTRY = struct.Struct("<16sBQQ")  # digest of the name, state, holders by bit, bytes of the handle
_PIECE = struct.Struct("<QQ")  # where a piece of memory begins, and its bytes
_HUGE = 1 << 21  # what pieces are aligned to, a huge page
_PATIENCE = 120.0  # seconds without anything new; reading one block takes less


class SharedMemory:
    """The shared file of one rank; see `Board`, which it is."""

    @classmethod
    def open(cls, peers: Peers) -> Self | None:
        """Open it now, as all other ranks do; None where they only exchange tensors.

        Raises PeerFailed where one of them cannot.
        """
        file, failure = -1, ""
        if peers.rank == 0:
            file = os.memfd_create("entracte")
            os.ftruncate(file, _TABLE)
        told = peers.exchange((os.getpid(), file))
        if len(told) < peers.size:
            if peers.rank == 0:
                os.close(file)
            return None
        process, number = cast(tuple[int, int], told[0])
        try:
            opened = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            opened, failure = -1, str(error)
        failures = [each for each in peers.exchange(failure) if each]
        if peers.rank == 0:
            os.close(file)
        if failures:
            raise PeerFailed(f"a rank cannot open the memory that the group shares: {failures[0]}")
        return cls(opened, peers)

    def __init__(self, file: int, peers: Peers) -> None:
        self._file = file
        self._peers = peers
        self._bit = 1 << peers.rank
        self._table = mmap.mmap(file, _TABLE)
        self._lock = Lock()  # the file's own lock does not keep a rank's threads apart
        self._found: dict[bytes, int] = {}
        self._pages: dict[int, mmap.mmap] = {}  # by address

    def join(self, name: str, make: Callable[[], bytes]) -> bytes:
        with self._locked():
            at = self._find(name)
            if at is None:
                at = self._add(name, make())
            digest, state, holders, length = _ENTRY.unpack_from(self._table, at)
            _ENTRY.pack_into(self._table, at, digest, state, holders | self._bit, length)
            return self._handle(at, length)

    def claim(self, name: str) -> bool:
        mine = self._peers.rank + 1
        return self._change_state(name, {0: mine, mine: mine}) == mine

    def disclaim(self, name: str) -> None:
        self._change_state(name, {self._peers.rank + 1: 0})

    def set_ready(self, name: str) -> None:
        with self._locked():
            at = self._find(name)
            if at is None:
                raise RuntimeError(f"{name} is ready, and is not held")
            digest, _, holders, length = _ENTRY.unpack_from(self._table, at)
            _ENTRY.pack_into(self._table, at, digest, _READY, holders, length)
            used, end, made = _HEAD.unpack_from(self._table)
            _HEAD.pack_into(self._table, 0, used, end, made + 1)

    def is_ready(self, name: str) -> bool:
        with self._locked():
            at = self._find(name)
            return at is not None and bool(_ENTRY.unpack_from(self._table, at)[1] == _READY)

    def await_ready(self, name: str) -> bytes:
        def take() -> bytes | None:
            at = self._find(name)
            if at is None:
                return None
            digest, state, holders, length = _ENTRY.unpack_from(self._table, at)
            if state != _READY:
                return None
            _ENTRY.pack_into(self._table, at, digest, state, holders | self._bit, length)
            return self._handle(at, length)

        handle: bytes | None = self._until(take, f"made {name} ready")
        assert handle is not None
        return handle

    def withdraw(self, name: str, wait: bool) -> None:
        def alone() -> bool:
            at = self._find(name)
            if at is None:
                return True
            digest, _, holders, length = _ENTRY.unpack_from(self._table, at)
            _ENTRY.pack_into(self._table, at, digest, 0, holders, length)
            return not wait or int(holders) in (0, self._bit)

        try:
            self._until(alone, f"let go of {name}")
        except PeerFailed:
            if not self._has_failed():
                raise

    def leave(self, name: str) -> bool:
        with self._locked():
            at = self._find(name)
            if at is None:
                return True
            digest, state, holders, length = _ENTRY.unpack_from(self._table, at)
            left = holders & ~self._bit
            state = 0 if state == self._peers.rank + 1 else state
            _ENTRY.pack_into(self._table, at, digest, state, left, length)
            return bool(left == 0)

    def named(self, name: str, nbytes: int) -> Tensor:
        """The memory [nbytes] uint8 that all ranks have by this name, at first zeros. It is held,
        as an entry. Raises OutOfMemory.
        """
        return self.map(self.join(name, lambda: self._allocate(nbytes)))

    def allocate(self, nbytes: int) -> bytes:
        """The handle of new memory, zeros, for `map` of any rank."""
        with self._locked():
            return self._allocate(nbytes)

    def map(self, handle: bytes) -> Tensor:
        """Memory [nbytes] uint8 by its handle. Raises OutOfMemory."""
        start, nbytes = _PIECE.unpack(handle)
        with torch.inference_mode(False):
            if nbytes == 0:
                return torch.empty(0, dtype=torch.uint8)
            try:
                pages = mmap.mmap(self._file, nbytes, offset=start)
            except OSError as error:
                raise OutOfMemory(f"the host has no {nbytes:,} bytes of memory: {error}") from error
            with suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
            memory = torch.frombuffer(pages, dtype=torch.uint8)
        self._pages[memory.data_ptr()] = pages
        return memory

    def unmap(self, memory: Tensor, empty: bool) -> None:
        """Let go of a piece, which is unmapped with its last view; `empty`: free it for all."""
        pages = self._pages.pop(memory.data_ptr(), None) if memory.nbytes else None
        if pages is not None and empty:
            pages.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Let go of everything; memory that others hold stays theirs."""
        self._pages.clear()
        self._table.close()
        os.close(self._file)

    def _allocate(self, nbytes: int) -> bytes:
        used, end, made = _HEAD.unpack_from(self._table)
        start = -(-max(end, _TABLE) // _HUGE) * _HUGE
        os.ftruncate(self._file, start + nbytes)
        _HEAD.pack_into(self._table, 0, used, start + nbytes, made)
        return _PIECE.pack(start, nbytes)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The table is this thread's alone; the system unlocks it when a process dies."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _until(self, done: Callable[[], bytes | bool | None], what: str) -> bytes | None:
        """Wait until `done`, under the lock, returns something true. Raises PeerFailed."""
        last, since = -1, time.monotonic()
        while True:
            with self._locked():
                found = done()
                made = _HEAD.unpack_from(self._table)[2]
            if found:
                return found if isinstance(found, bytes) else None
            self._peers.check()
            now = time.monotonic()
            if made != last:
                last, since = made, now
            elif now - since > _PATIENCE:
                raise PeerFailed(f"no rank has {what} for {_PATIENCE:.0f} seconds")
            time.sleep(0.001)

    def _change_state(self, name: str, change: Mapping[int, int]) -> int:
        """Change an entry's state, if it is one of these; returns what it is then."""
        with self._locked():
            at = self._find(name)
            if at is None:
                return 0
            digest, state, holders, length = _ENTRY.unpack_from(self._table, at)
            state = change.get(state, state)
            _ENTRY.pack_into(self._table, at, digest, state, holders, length)
            return int(state)

    def _has_failed(self) -> bool:
        try:
            self._peers.check()
        except PeerFailed:
            return True
        return False

    def _handle(self, at: int, length: int) -> bytes:
        return bytes(self._table[at + _ENTRY.size : at + _ENTRY.size + length])

    def _find(self, name: str) -> int | None:
        """Where an entry is in the table."""
        digest = _digest(name)
        at = self._found.get(digest)
        if at is not None and self._is(at, digest):
            return at
        used = _HEAD.unpack_from(self._table)[0]
        for number in range(1, used + 1):
            if self._is(number * _RECORD, digest):
                self._found[digest] = number * _RECORD
                return number * _RECORD
        return None

    def _is(self, at: int, digest: bytes) -> bool:
        found, _, holders, _ = _ENTRY.unpack_from(self._table, at)
        return bool(found == digest and holders)

    def _add(self, name: str, handle: bytes) -> int:
        used, end, made = _HEAD.unpack_from(self._table)
        free = (n * _RECORD for n in range(1, used + 1) if not self._holders(n * _RECORD))
        at = next(free, None)
        if at is None:
            if used == _RECORDS:
                raise RuntimeError("the table of what ranks share is full")
            at = (used + 1) * _RECORD
            _HEAD.pack_into(self._table, 0, used + 1, end, made)
        _ENTRY.pack_into(self._table, at, _digest(name), 0, 0, len(handle))
        self._table[at + _ENTRY.size : at + _ENTRY.size + len(handle)] = handle
        return at

    def _holders(self, at: int) -> int:
        return int(_ENTRY.unpack_from(self._table, at)[2])


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=16).digest()
