"""Work for groups of processes that is not a video: a sum over ranks at every step."""

import logging
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from entracte.errors import Cancelled, NotFinite, OutOfMemory
from entracte.group import Leader, Member
from entracte.group.leader import Patience

PATIENCE = Patience()

# What one rank does before its second step. hang: it waits forever. freeze: its process is stopped.
Fault = Literal["warns", "raises", "runs out", "mistake", "dies", "hang", "freeze"]


@dataclass(frozen=True)
class Steps:
    """Take so many steps. faulty: the rank with the fault. stop: the leader is asked to, at the
    second step.
    """

    steps: int = 3
    fault: Fault | None = None
    faulty: int = 1
    stop: bool = False


def take(member: Member, order: Steps, device: torch.device) -> int:
    """A number in which every step and every rank counts."""
    total = 0
    for step in range(order.steps):
        if step == 1 and member.rank == order.faulty and order.fault is not None:
            do(order.fault)
        assert member.mesh is not None
        mine = torch.tensor([10**member.rank * (step + 1)], device=device)
        total += sum(int(each) for each in member.mesh.everyone.gather(mine, [[1]] * member.size))
        if member.agree(order.stop and step == 1):
            raise Cancelled("stopped by the caller")
    return total


def do(fault: Fault) -> None:
    match fault:
        case "warns":
            logging.getLogger("entracte.a.module").warning("there are %d apples", 5)
        case "raises":
            raise NotFinite("a stage gave NaN")
        case "runs out":
            raise OutOfMemory("computing: 1 byte asked for")
        case "mistake":
            raise KeyError("a mistake")
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            threading.Event().wait()


class Worker:
    """Takes steps as a follower."""

    def __init__(self, member: Member, device: torch.device) -> None:
        self._member = member
        self._device = device
        assert member.exchange(member.rank) == list(range(member.size))

    def follow(self, order: Steps) -> int:
        return take(self._member, order, self._device)

    def close(self) -> None:
        pass


def started(devices: Sequence[torch.device], patience: Patience = PATIENCE) -> Leader:
    """A group of workers."""
    leader = Leader(devices, Worker, patience)
    Worker(leader, devices[0])
    leader.wait_until_open()
    return leader


def carry_out(leader: Leader, order: Steps) -> list[object]:
    """What every rank made."""
    device = leader.devices[0]
    if leader.restart():
        Worker(leader, device)
    with leader.share(order) as shared:
        mine = take(leader, order, device)
    return [mine, *shared.reports]


def expected(size: int, steps: int = 3) -> list[object]:
    return [sum(range(steps + 1)) * sum(10**rank for rank in range(size))] * size


def processes(leader: Leader) -> list[int]:
    """The followers'."""
    return [each.process.pid for each in leader._followers]


def refuse(member: Member, device: torch.device) -> Worker:
    raise NotFinite("this rank does not open")
