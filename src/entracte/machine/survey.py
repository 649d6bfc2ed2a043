"""Surveys a machine for the planner and the doctor."""

import logging
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from entracte.errors import EntracteError
from entracte.residency import Backend, device_errors
from entracte.units import GIB
from entracte.version import __version__

from . import cache
from .cards import CARDS, card_for_device, practical_rates
from .device import DeviceFacts, device_facts
from .disk import disk_rate
from .hardware import Hardware, Origin, PeerLink, Rates
from .host import HostFacts, host_facts
from .peers import copied_per_second, link_by_copies, reach_each_other
from .rates import MEASURES, Bench
from .refused import NotMeasured, PinningRefused, TooLittle, first_line, refusals

logger = logging.getLogger(__name__)

# Of CPUs, where they cannot be measured.
CPU_RATES = Rates(
    matmul=200e9, merge=50e9, device_copy=10e9, h2d=5e9, d2h=5e9, pageable=5e9, disk=7e9
)
LEAST_CARD = next(each for each in CARDS if each.name == "l4")  # stands in for unknown cards
UNKNOWN_HOST_MEMORY = 16 * GIB


@dataclass(frozen=True, slots=True)
class Survey:
    """not_measured: why rates were not measured, by name. disk_cached: whether the files that were
    to be read may have been in memory. The hardware is one device; its link to others of the
    machine is there if it was ever measured.
    """

    hardware: Hardware
    host: HostFacts
    device: DeviceFacts
    not_measured: Mapping[str, str]
    disk_cached: bool


def survey(
    backend: Backend,
    dtype: torch.dtype,
    folder: Path | None = None,
    refresh: bool = False,
    peers: bool = False,
) -> Survey:
    """Survey a machine; see `probe`. peers: measure the link between GPUs, if there are several,
    which makes this process take a little memory of another one for good.
    """
    host = host_facts()
    device = _device_facts(backend)
    identity = _identity(backend, dtype, device)
    kept = cache.Kept() if refresh else cache.load(identity)
    rates, disks = {n: r for n, r in kept.rates.items() if n in MEASURES}, dict(kept.disks)
    links = dict(kept.peers)
    before = dict(rates), dict(disks), dict(links)
    pinnable, not_measured = _measure(Bench.of(backend, dtype), rates)
    disk_cached = folder is not None and _measure_disk(folder, rates, disks, not_measured)
    link = _peer_link(backend, links, peers, not_measured)
    computed = {name: rate for name, rate in rates.items() if name in MEASURES}
    if (computed, disks, links) != before:
        cache.keep(identity, cache.Kept(rates=computed, disks=disks, peers=links))
    if backend.device.type == "cuda":
        device = _after_measuring(backend, device)
    all_rates, origins = _completed(rates, not_measured, backend, device)
    takeable = host.takeable
    if takeable is None:
        logger.warning(
            "How much memory this host has is unknown; %d GiB are assumed",
            UNKNOWN_HOST_MEMORY >> 30,
        )
        takeable = UNKNOWN_HOST_MEMORY
    hardware = Hardware(
        name=device.name,
        device_memory=takeable if backend.unified else _device_memory(device),
        host_memory=takeable,
        rates=all_rates,
        pinned_memory=_pinned_memory(backend, host, pinnable),
        unified=backend.unified,
        origins=origins if link is None else origins | {"peers": "measured"},
        peers=link,
    )
    return Survey(hardware, host, device, not_measured, disk_cached)


def _device_facts(backend: Backend) -> DeviceFacts:
    try:
        return device_facts(backend.device, backend.bytes_for_peers)
    except EntracteError as error:
        logger.warning("The device does not say what it is: %s", first_line(error))
        return DeviceFacts("unknown")


def _after_measuring(backend: Backend, before: DeviceFacts) -> DeviceFacts:
    """The device's facts after measuring; `before` if the device failed."""
    try:
        with device_errors("giving memory back"):
            torch.cuda.empty_cache()
        return device_facts(backend.device, backend.bytes_for_peers)
    except EntracteError:
        return before


def _device_memory(device: DeviceFacts) -> int:
    """Bytes of a separate device's memory that this process may use."""
    if device.free is not None:
        return device.free + device.own
    assumed = int(LEAST_CARD.memory * GIB)
    logger.warning("How much memory the device has is unknown; %d bytes are assumed", assumed)
    return assumed


def identity_of(backend: Backend, dtype: torch.dtype) -> cache.Identity:
    """The machine and versions that what is found out of them is kept by."""
    return _identity(backend, dtype, _device_facts(backend))


def _identity(backend: Backend, dtype: torch.dtype, device: DeviceFacts) -> cache.Identity:
    return cache.Identity(
        device=device.name,
        memory=device.total or 0,
        slot=device.slot or "",
        cores=os.cpu_count() or 0,
        threads=torch.get_num_threads() if backend.unified else 0,
        dtype=str(dtype).removeprefix("torch."),
        driver=device.driver or "",
        torch=torch.__version__,
        entracte=__version__,
    )


def _measure(bench: Bench, rates: dict[str, float]) -> tuple[bool, dict[str, str]]:
    """Add missing rates. Returns whether memory can be pinned, and why rates are still missing."""
    pinnable = True
    not_measured: dict[str, str] = {}
    known = refusals()
    for name, measure in MEASURES.items():
        if name in rates:
            continue
        try:
            rates[name] = measure(bench)
        except known as error:
            pinnable = pinnable and not isinstance(error, PinningRefused)
            not_measured[name] = first_line(error)
            logger.warning("%s cannot be measured and is assumed: %s", name, first_line(error))
    return pinnable, not_measured


def _measure_disk(
    folder: Path, rates: dict[str, float], disks: dict[str, float], not_measured: dict[str, str]
) -> bool:
    """Add the disk's rate; returns whether the files may have been cached. Then it is not kept."""
    try:
        try:
            # Device numbers are only meaningful on one host.
            disk = f"{platform.node()}:{folder.stat().st_dev}"
        except OSError as error:
            raise NotMeasured(f"the folder cannot be read: {error.strerror}") from error
        if disk not in disks:
            found = disk_rate(folder)
            if found.cached:
                logger.warning("The disk may be slower than measured: its files are in memory")
                rates["disk"] = found.bytes_per_second
                return True
            disks[disk] = found.bytes_per_second
        rates["disk"] = disks[disk]
    except NotMeasured as error:
        not_measured["disk"] = str(error)
        level = logging.INFO if isinstance(error, TooLittle) else logging.WARNING
        logger.log(level, "The disk cannot be measured, and its rate is assumed: %s", error)
    return False


def _peer_link(
    backend: Backend, links: dict[str, float], measure: bool, not_measured: dict[str, str]
) -> PeerLink | None:
    """The link between this machine's GPUs; None if there is one, or it was never measured."""
    if backend.device.type != "cuda" or torch.cuda.device_count() < 2:
        return None
    if measure and "copy" not in links:
        known = refusals()
        try:
            links["copy"] = copied_per_second()
        except known as error:
            not_measured["peers"] = first_line(error)
            logger.warning("The link between GPUs cannot be measured: %s", first_line(error))
    if "copy" not in links:
        return None
    return link_by_copies(links["copy"], reach_each_other(torch.cuda.device_count()))


def _completed(
    measured: Mapping[str, float],
    not_measured: Mapping[str, str],
    backend: Backend,
    device: DeviceFacts,
) -> tuple[Rates, dict[str, Origin]]:
    """The measured rates, and assumed ones in place of those that are missing."""
    assumed = CPU_RATES
    if not backend.unified:
        found = card_for_device(device.name)
        if found is None and not_measured:
            logger.warning("This card is not known: it is taken to be like an %s", LEAST_CARD.name)
        assumed, _ = practical_rates(found or LEAST_CARD)
    origins: dict[str, Origin] = {
        name: "measured" if name in measured else "assumed" for name in asdict(assumed)
    }
    return Rates(**(asdict(assumed) | dict(measured))), origins


def _pinned_memory(backend: Backend, host: HostFacts, pinnable: bool) -> int | None:
    """NVIDIA's driver pins without regard to RLIMIT_MEMLOCK; on Windows, about half of memory."""
    if backend.unified:
        return None
    if not pinnable:
        return 0
    if host.total is not None and (sys.platform == "win32" or host.virtual_machine_of_windows):
        return host.total // 2
    return None
