"""A serving engine's published figures for the modes that it had (April 2026, 30 steps).

The resolution is not stated. Milliseconds; gigabytes of peak memory on the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: the published name of a stage, and our stages that do the same."""

    name: str
    ours: tuple[str, ...]


ROWS = (
    Row("InputValidation", ("validate",)),
    Row("TextEncoding", ("encode text",)),
    Row("TextConnector", ("connect text",)),
    Row("LoRASwitch", ("load weights", "switch to stage1", "switch to stage2")),
    Row(
        "TimestepPreparation",
        (
            "prepare latents (stage1)",
            "prepare latents (stage2)",
            "encode images (stage1)",
            "encode images (stage2)",
        ),
    ),
    Row("AVDenoising", ("denoise",)),
    Row("Upsample", ("upsample",)),
    Row("Refinement", ("refine",)),
    Row("AVDecoding", ("decode audio", "decode video")),
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
