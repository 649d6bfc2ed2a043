"""Groups whose processes torchrun started, all with the same command on one machine.

Rank 0 leads. The others connect to it and follow.
"""

import os
import tempfile
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import NoReturn

from torch.distributed.rendezvous import rendezvous

from entracte.errors import RequestError
from entracte.launcher import launched_ranks

from .follower import Follower, ignore_signals
from .processes import FollowerProcess

SOCKET_KEY = "entracte/socket"


def launched_followers(size: int) -> list[FollowerProcess]:
    """The other ranks that torchrun started, once all have connected; none if it did not start us.

    Raises RequestError for another number than `size`, and for ranks on other machines.
    """
    if launched_ranks() == 1:
        return []
    if launched_ranks() != size or os.environ["LOCAL_WORLD_SIZE"] != os.environ["WORLD_SIZE"]:
        raise RequestError(
            f"torchrun started {launched_ranks()} ranks, and {size} devices of this machine are to "
            "make a video together"
        )
    orders: dict[int, Connection] = {}
    reports: dict[int, Connection] = {}
    pids: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="entracte-torchrun-") as folder:
        path = str(Path(folder) / "socket")
        with Listener(path, "AF_UNIX", backlog=2 * size) as listener:
            store, _, _ = next(rendezvous("env://"))
            store.set(SOCKET_KEY, path)
            while len(reports) < size - 1 or len(orders) < size - 1:
                connection = listener.accept()
                kind, rank, pids[rank] = connection.recv()
                (orders if kind == "orders" else reports)[rank] = connection
    return [FollowerProcess(orders[rank], reports[rank], pids[rank]) for rank in range(1, size)]


def follow_launched() -> NoReturn:
    """Follow, as a rank of torchrun's other than the first."""
    ignore_signals()
    store, rank, _ = next(rendezvous("env://"))
    path = store.get(SOCKET_KEY).decode()
    sockets = {}
    for kind in ("orders", "reports"):
        sockets[kind] = Client(path, "AF_UNIX")
        sockets[kind].send((kind, rank, os.getpid()))
    Follower(sockets["orders"], sockets["reports"]).run()
