"""Well-known cards from their data sheets, and their practical rates.

Practical rates are those of the data sheet, times the share that an H200 was measured to reach.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from entracte.errors import RequestError
from entracte.units import GIB

from .hardware import Hardware, Origin, PeerLink, Rates

# Measured on an H200: 4.3 of 4.8 TB/s, 790 of 989 TFLOP/s.
COPY_SHARE = 4.3 / 4.8
MATMUL_SHARE = 790 / 989
# Of matrix products. Memory lets a merge of the whole transformer on an H200 take 20 ms, a share of
# 0.92; the kernel will not reach that.
MERGE_SHARE = 0.6

# Of several GPUs. Measured on two H200s: of the 450 GB/s each way that NVLink has, copies reach
# 390, and what the ranks of a row write for each other in a block 380.
PEER_COPY_SHARE = 390 / 450
EXCHANGE_SHARE = 380 / 450
# Seconds of an exchange of almost nothing: over NVLink a block has five meetings, 4.7 us each, for
# nine of them, as measured there; the others are assumed.
NVLINK_LATENCY, PCIE_LATENCY, HOST_LATENCY = 3e-6, 10e-6, 60e-6
# Through the host's memory everything is copied twice, over links that all GPUs share.
THROUGH_HOST = 0.4

GEN5 = 55e9  # bytes per second each way with 16 lanes, in practice
GEN4 = 25e9
PAGEABLE = 2.8e9  # measured on the host of an H200
DISK = 7e9


@dataclass(frozen=True, slots=True)
class Card:
    """A card as sold.

    memory: GiB as CUDA reports them, a little less than on the box. bandwidth: of memory, bytes per
    second. flops: dense bfloat16 products, summed in float32, a second. link: bytes per second.
    devices: what the driver calls it. aliases: other names.
    nvlink: bytes per second each way to the other cards of a machine; 0: they have PCI Express.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float
    link: float
    devices: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    nvlink: float = 0.0

    @property
    def peer_access(self) -> bool:
        """Whether cards reach each other's memory. GeForce cards do not, without a bridge."""
        return not any("GeForce" in each for each in self.devices)


# GeForce cards sum in float32 at half the rate that their data sheets put first.
CARDS: tuple[Card, ...] = (
    Card("b200", 178.3, 8.0e12, 2250e12, GEN5, ("NVIDIA B200",), nvlink=900e9),
    Card("h200", 139.8, 4.8e12, 989e12, GEN5, ("NVIDIA H200",), ("h200-sxm",), 450e9),
    Card("h200-nvl", 139.8, 4.8e12, 835e12, GEN5, ("NVIDIA H200 NVL",)),
    Card(
        "h100-80gb",
        79.1,
        3.35e12,
        989e12,
        GEN5,
        ("NVIDIA H100 80GB HBM3",),
        ("h100", "h100-sxm"),
        450e9,
    ),
    Card("h100-pcie", 79.1, 2.0e12, 756e12, GEN5, ("NVIDIA H100 PCIe",)),
    Card("h100-nvl", 93.1, 3.9e12, 835e12, GEN5, ("NVIDIA H100 NVL",)),
    Card(
        "a100-80gb",
        79.2,
        2.0e12,
        312e12,
        GEN4,
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
        ("a100",),
        300e9,
    ),
    Card(
        "a100-40gb",
        39.4,
        1.555e12,
        312e12,
        GEN4,
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        nvlink=300e9,
    ),
    Card("l40s", 44.4, 864e9, 362e12, GEN4, ("NVIDIA L40S",)),
    Card("l40", 44.4, 864e9, 181e12, GEN4, ("NVIDIA L40",)),
    Card("l4", 22.0, 300e9, 121e12, GEN4, ("NVIDIA L4",)),
    Card("a40", 44.4, 696e9, 149.7e12, GEN4, ("NVIDIA A40",)),
    Card("a10", 22.0, 600e9, 125e12, GEN4, ("NVIDIA A10",)),
    Card(
        "rtx-pro-6000",
        95.0,
        1.792e12,
        503e12,
        GEN5,
        (
            "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
            "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        ),
        ("rtx-pro-6000-blackwell",),
    ),
    Card(
        "rtx-6000-ada",
        47.4,
        960e9,
        364e12,
        GEN4,
        ("NVIDIA RTX 6000 Ada Generation",),
        ("6000-ada",),
    ),
    Card("rtx-a6000", 47.5, 768e9, 154.8e12, GEN4, ("NVIDIA RTX A6000",), ("a6000",)),
    Card("rtx-5090", 31.4, 1.792e12, 209.5e12, GEN5, ("NVIDIA GeForce RTX 5090",), ("5090",)),
    Card("rtx-5080", 15.5, 960e9, 112.6e12, GEN5, ("NVIDIA GeForce RTX 5080",), ("5080",)),
    Card("rtx-5070-ti", 15.5, 896e9, 87.9e12, GEN5, ("NVIDIA GeForce RTX 5070 Ti",), ("5070-ti",)),
    Card("rtx-5070", 11.5, 672e9, 61.7e12, GEN5, ("NVIDIA GeForce RTX 5070",), ("5070",)),
    Card("rtx-4090", 23.6, 1.008e12, 165.2e12, GEN4, ("NVIDIA GeForce RTX 4090",), ("4090",)),
    Card(
        "rtx-4080-super",
        15.6,
        736e9,
        104.4e12,
        GEN4,
        ("NVIDIA GeForce RTX 4080 SUPER",),
        ("4080-super",),
    ),
    Card("rtx-4080", 15.6, 716.8e9, 97.5e12, GEN4, ("NVIDIA GeForce RTX 4080",), ("4080",)),
    Card(
        "rtx-4070-ti-super",
        15.6,
        672e9,
        88.2e12,
        GEN4,
        ("NVIDIA GeForce RTX 4070 Ti SUPER",),
        ("4070-ti-super",),
    ),
    Card("rtx-4070", 11.6, 504e9, 58.3e12, GEN4, ("NVIDIA GeForce RTX 4070",), ("4070",)),
    # Its slot has half the lanes.
    Card("rtx-4060", 7.6, 272e9, 30.2e12, GEN4 / 2, ("NVIDIA GeForce RTX 4060",), ("4060",)),
    Card("rtx-3090-ti", 23.6, 1.008e12, 80e12, GEN4, ("NVIDIA GeForce RTX 3090 Ti",), ("3090-ti",)),
    Card("rtx-3090", 23.6, 936e9, 71e12, GEN4, ("NVIDIA GeForce RTX 3090",), ("3090",)),
)

# What was measured of a card itself, not worked out from its data sheet.
MEASURED: Mapping[str, frozenset[str]] = MappingProxyType(
    {"h200": frozenset({"matmul", "device_copy"})}
)
RATE_NAMES = tuple(each.name for each in fields(Rates))

# Ampere: without products in float8.
WITHOUT_FLOAT8 = frozenset(
    ("a100-80gb", "a100-40gb", "a40", "a10", "rtx-a6000", "rtx-3090-ti", "rtx-3090")
)


def card(name: str, host_memory: int, devices: int = 1, **overrides: float) -> Hardware:
    """A machine with so many well-known cards of a kind and `host_memory` bytes.

    overrides: device_memory, pinned_memory (bytes) or a rate by its name, instead of the table's.
    Raises RequestError for an unknown name, or for an override that is unknown or not above 0.
    """
    found = _find(name)
    for key, value in overrides.items():
        if key not in ("device_memory", "pinned_memory", *RATE_NAMES):
            raise RequestError(f"a card has no {key!r}")
        if not (math.isfinite(value) and value > 0):
            raise RequestError(f"{key} must be above 0, not {value}")
    given = {key: value for key, value in overrides.items() if key in RATE_NAMES}
    rates, origins = practical_rates(found, given)
    pinned = overrides.get("pinned_memory")
    return Hardware(
        name=found.name,
        device_memory=int(overrides.get("device_memory", found.memory * GIB)),
        host_memory=host_memory,
        rates=rates,
        pinned_memory=None if pinned is None else int(pinned),
        origins=origins | ({"peers": "assumed"} if devices > 1 else {}),
        devices=devices,
        peers=peer_link(found) if devices > 1 else None,
    )


def peer_link(found: Card) -> PeerLink:
    """How several of a card reach each other, in practice."""
    if found.nvlink:
        copy, exchange = found.nvlink * PEER_COPY_SHARE, found.nvlink * EXCHANGE_SHARE
        return PeerLink(copy, NVLINK_LATENCY, exchange, direct=True)
    if found.peer_access:
        return PeerLink(found.link, PCIE_LATENCY, found.link, direct=True)
    rate = found.link * THROUGH_HOST
    return PeerLink(rate, HOST_LATENCY, rate, direct=False)


def practical_rates(
    found: Card, given: Mapping[str, float] = MappingProxyType({})
) -> tuple[Rates, dict[str, Origin]]:
    """Practical rates of a card, `given` ones taking precedence, and their origins."""
    matmul = given.get("matmul", found.flops * MATMUL_SHARE)
    rates: dict[str, float] = {
        "matmul": matmul,
        "merge": matmul * MERGE_SHARE,
        "device_copy": found.bandwidth * COPY_SHARE,
        "h2d": found.link,
        "d2h": found.link,
        "pageable": PAGEABLE,
        "disk": DISK,
    }
    origins: dict[str, Origin] = dict.fromkeys(rates, "assumed")
    origins |= {"matmul": "data sheet", "device_copy": "data sheet"}
    origins |= dict.fromkeys(MEASURED.get(found.name, ()), "measured")
    origins |= dict.fromkeys(given, "given")
    return Rates(**(rates | dict(given))), origins


def card_for_device(cuda_name: str) -> Card | None:
    """The card with this CUDA name; None for others, including partitions and laptop versions."""
    wanted = _plain(cuda_name)
    return next((c for c in CARDS if wanted in map(_plain, c.devices)), None)


def _find(name: str) -> Card:
    names = {_plain(each): c for c in CARDS for each in (c.name, *c.aliases, *c.devices)}
    wanted = _plain(name)
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=6, cutoff=0.5)
    nearest = list(dict.fromkeys(names[each].name for each in near))[:3]
    known = ", ".join(each.name for each in CARDS)
    meant = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    raise RequestError(f"no card {name!r} is known; {meant}Known are {known}")


def _plain(name: str) -> str:
    """A name without case, spaces, hyphens and underscores, and without the maker."""
    return re.sub(r"nvidia|geforce|[^a-z0-9]", "", name.lower())
