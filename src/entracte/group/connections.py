"""The connections of one rank to the others, for tensors and for small values."""

import gc
import os
import pickle
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch._C._distributed_c10d import FileStore, ProcessGroup

from entracte.errors import PeerFailed
from entracte.parallel import Mesh, Ranks, connecting

# The group itself notices ranks that died or hang; torch's own limits must not be shorter.
EXCHANGE_LIMIT = timedelta(hours=12)

# How long a rank waits for the others to open what it opens.
OPENING_SECONDS = 600.0
POLL_SECONDS = 0.005


class RankConnections:
    """Made by every rank with the same folder, private to the group.

    Those for tensors are numbered: an abort ends them, and later orders use the next ones.
    """

    def __init__(self, folder: Path, rank: int, size: int, device: torch.device) -> None:
        self.mesh: Mesh | None = None
        self._folder = folder
        self._rank = rank
        self._size = size
        self._device = device
        self._number: int | None = None
        self._groups: list[ProcessGroup] = []
        self._exchanges = 0

    def use(self, number: int, check: Callable[[], None]) -> None:
        """Use the connections of that number; where they are new, all ranks do so at once.

        check: raises where another rank has failed.
        """
        if number == self._number:
            return
        self.close()
        self._meet(f"before-{number}", None, check)  # torch would wait for one that never comes
        store = FileStore(str(self._folder / f"connections-{number}"), self._size)
        connect_by = connecting(store, self._device, EXCHANGE_LIMIT)

        def connect(name: str, rank: int, size: int) -> ProcessGroup:
            self._groups.append(connect_by(name, rank, size))
            return self._groups[-1]

        self.mesh = Mesh.open(Ranks(connect("everyone", self._rank, self._size)), connect)
        if self._device.type == "cuda":
            for group in self._groups:  # or it would be connected amid a step
                Ranks(group).gather(torch.zeros(1, device=self._device), [[1]] * group.size())
            torch.cuda.synchronize(self._device)
        self._number = number

    def abort(self) -> bool:
        """End this rank's exchanges of tensors at once, from any thread; returns whether it can.

        gloo cannot: there they fail when another rank that takes part closes its connections, or
        ends.
        """
        try:
            if self.mesh is not None:
                self.mesh.break_off()
        finally:
            if self._device.type == "cuda":
                for group in self._groups:
                    group.abort()
        return self._device.type == "cuda"

    def close(self) -> None:
        """Close those for tensors, once no frame of an exchange is left."""
        self.mesh, self._groups, self._number = None, [], None
        gc.collect()  # errors and their frames refer to each other

    def exchange(self, value: object, check: Callable[[], None]) -> list[object]:
        """See `Member.exchange`. check: raises where another rank has failed."""
        self._exchanges += 1
        return self._meet(f"value-{self._exchanges}", value, check)

    def _meet(self, name: str, value: object, check: Callable[[], None]) -> list[object]:
        paths = [self._folder / f"{name}-{rank}" for rank in range(self._size)]
        part = paths[self._rank].with_suffix(".part")
        part.write_bytes(pickle.dumps(value))
        part.rename(paths[self._rank])
        deadline = time.monotonic() + OPENING_SECONDS
        for rank, path in enumerate(paths):
            while not os.path.lexists(path):
                check()
                if time.monotonic() > deadline:
                    raise PeerFailed(f"rank {rank} did not open within {OPENING_SECONDS:g} s")
                time.sleep(POLL_SECONDS)
        return [pickle.loads(path.read_bytes()) for path in paths]
