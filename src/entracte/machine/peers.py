"""How the devices of a group reach each other."""

import time
from dataclasses import replace

import torch

from entracte.residency import device_errors
from entracte.units import MIB

from .cards import (
    CARDS,
    EXCHANGE_SHARE,
    HOST_LATENCY,
    NVLINK_LATENCY,
    PEER_COPY_SHARE,
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
    """The link between devices that copy so many bytes per second to each other at once.

    direct: they have access to each other's memory. Of an all-to-all, latency and rate follow as on
    the cards where both were measured.
    """
    exchange = rate * EXCHANGE_SHARE / PEER_COPY_SHARE
    return PeerLink(rate, NVLINK_LATENCY if direct else HOST_LATENCY, exchange, direct)


def copied_per_second() -> float:
    """Bytes per second between the first two CUDA devices each way, while both ways are busy.

    Raises DeviceFault and OutOfMemory.
    """
    devices = [torch.device("cuda", number) for number in range(2)]
    with device_errors("measuring the link between devices"):
        here, there = (
            [torch.ones(COPIED, dtype=torch.uint8, device=device) for _ in range(2)]
            for device in devices
        )
        streams = [torch.cuda.Stream(device) for device in devices]

        def both(times: int) -> float:
            for device in devices:
                torch.cuda.synchronize(device)
            began = time.perf_counter()
            for _ in range(times):
                with torch.cuda.stream(streams[0]):
                    here[0].copy_(there[0], non_blocking=True)
                with torch.cuda.stream(streams[1]):
                    there[1].copy_(here[1], non_blocking=True)
            for stream in streams:
                stream.synchronize()
            return time.perf_counter() - began

        both(1)
        return COPIED * COPIES / both(COPIES)
