"""A serving engine's published figures for its modes (April 2026, 30 steps).

The resolution is not stated. Milliseconds; gigabytes of peak memory on the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# The published names of stages, in the order of the published table. `Stage.row` says in which of
# them a stage of ours counts.
ROWS = (
    "InputValidation",
    "TextEncoding",
    "TextConnector",
    "LoRASwitch",
    "TimestepPreparation",
    "AVDenoising",
    "Upsample",
    "Refinement",
    "AVDecoding",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A published run. stages: in the order of `ROWS`."""

    name: str
    card: str
    stages: tuple[float, ...]
    end_to_end: float
    peak_memory: float


COLUMNS: Mapping[str, Column] = MappingProxyType(
    {
        "legacy": Column(
            "legacy",
            "H200",
            (0.05, 1629, 26.3, 126.9, 32.2, 13388, 752, 804, 935),
            28429,
            58.01,
        ),
        "snapshot low-vram": Column(
            "snapshot low-vram",
            "H100",
            (0.06, 1688, 27.4, 0.02, 25.0, 14257, 1124, 2850, 1191),
            21345,
            57.22,
        ),
        "snapshot aggressive": Column(
            "snapshot aggressive",
            "H200",
            (0.05, 1598, 28.0, 0.01, 29.4, 10341, 403, 1333, 826),
            14740,
            95.12,
        ),
        "resident": Column(
            "resident",
            "H200",
            (0.04, 1690, 26.5, 0.01, 38.3, 8572, 314, 884, 851),
            12533,
            95.78,
        ),
    }
)
