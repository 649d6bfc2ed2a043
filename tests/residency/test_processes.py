"""Two ranks in processes, on CPUs and on GPUs: in every mode the bits of one device."""

import multiprocessing
from multiprocessing.connection import Connection

import pytest
import torch
from torch import Tensor

from entracte.residency import DeviceManager, Residency, open_backend

from .ranks import PipePeers
from .toy import ADAPTERS, expected, make_spec, perform

PEER = {"net": "peer"}
MODES = (
    *(Residency("resident", places=PEER), Residency("fused", places=PEER)),
    *(Residency("snapshot", resident_blocks=2), Residency("original", resident_blocks=3)),
    *(Residency("resident"), Residency("resident", places=PEER)),
)
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs")


def of_rank(rank: int, device: str, pipe: Connection, report: Connection) -> None:
    """Requests in every mode under one backend; reports what each copied from the other rank, or
    why its bits are wrong.
    """
    peers = PipePeers(rank, pipe)
    held = torch.device(device, rank) if device == "cuda" else torch.device(device)
    x = torch.linspace(-1, 1, 16).view(2, 8).bfloat16().to(held)
    right: list[Tensor] | None = None if device == "cuda" else expected()
    with DeviceManager(
        [make_spec()], open_backend(held, peers), MODES[0], adapters=ADAPTERS
    ) as manager:
        for wanted in MODES:
            manager.configure(wanted)
            for _ in range(2):
                results = perform(manager, x=x)
                peers.exchange(None)
            right = right or results
            if not all(map(torch.equal, results, right)):
                report.send(f"{wanted} has other bits")
                return
        report.send(manager.backend.traffic.bytes_from_peers)
        peers.exchange(None)


@pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=[pytest.mark.gpu, TWO_GPUS]),
    ],
)
def test_two_processes_have_the_bits_of_one_device_in_every_mode(device: str) -> None:
    spawning = multiprocessing.get_context("spawn")
    pipes, reports = spawning.Pipe(), [spawning.Pipe(duplex=False) for _ in range(2)]
    processes = [
        spawning.Process(target=of_rank, args=(rank, device, pipes[rank], reports[rank][1]))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for end in (*pipes, *(sending for _, sending in reports)):
        end.close()  # theirs, whose end we would not see
    copied = [receiving.recv() for receiving, _ in reports]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert all(isinstance(each, int) and each > 0 for each in copied), copied
