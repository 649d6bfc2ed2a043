"""How the devices of a group reach each other."""

from dataclasses import replace

import torch

from entracte.residency import device_errors
from entracte.units import MIB

from .cards import (
    CARDS,
    HOST_LATENCY,
    NVLINK_LATENCY,
    card_for_device,
    peer_link,
)
from .hardware import Hardware, PeerLink

# Processes on one host exchange through its memory, by gloo.
CPU_PEERS = PeerLink(copy=2e9, latency=300e-6, exchange=1e9, direct=False)

# Of devices that are not known, as of cards without access to each other's memory.
UNKNOWN_PEERS = peer_link(next(each for each in CARDS if each.name == "rtx-4090"))

# Bytes of a copy, and how many are timed.
COPIED, COPIES = 256 * MIB, 8


def with_devices(hardware: Hardware, devices: int) -> Hardware:
    """A machine with so many of its devices in a group; what is not known of them is assumed."""
    if devices == hardware.devices:
        return hardware
    found, peers, origins = card_for_device(hardware.name), hardware.peers, dict(hardware.origins)
    if peers is None:
        origins["peers"] = "assumed"
        peers = CPU_PEERS if hardware.unified else UNKNOWN_PEERS
        peers = peers if found is None else peer_link(found)
    memory = hardware.device_memory
    if hardware.unified:  # all of them have the host's
        memory //= devices
    return replace(hardware, device_memory=memory, devices=devices, peers=peers, origins=origins)


def reach_each_other(devices: int) -> bool:
    """Whether all of the first CUDA devices have access to each other's memory."""
    pairs = ((a, b) for a in range(devices) for b in range(devices) if a != b)
    return all(torch.cuda.can_device_access_peer(a, b) for a, b in pairs)


def link_by_copies(rate: float, direct: bool) -> PeerLink:
    """The link between devices that copy so many bytes per second to each other.

    direct: they have access to each other's memory, so exchanges are copies too.
    """
    return PeerLink(rate, NVLINK_LATENCY if direct else HOST_LATENCY, rate, direct)


def copied_per_second() -> float:
    """Bytes per second from the second CUDA device to the first.

    Raises DeviceFault and OutOfMemory.
    """
    here, there = torch.device("cuda", 0), torch.device("cuda", 1)
    with device_errors("measuring the link between devices"), torch.cuda.device(here):
        target, source = (
            torch.ones(COPIED, dtype=torch.uint8, device=device) for device in (here, there)
        )
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        target.copy_(source)  # lets the one reach the other
        torch.cuda.synchronize(there)
        begin.record()
        for _ in range(COPIES):
            target.copy_(source, non_blocking=True)
        end.record()
        end.synchronize()
        return COPIED * COPIES / (float(begin.elapsed_time(end)) / 1e3)
