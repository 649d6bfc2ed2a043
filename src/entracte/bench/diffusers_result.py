"""The results of diffusers, and their distance from ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from torch import Tensor

Peer = Literal["diffusers", "diffusers-compiled"]
PEERS: Mapping[Peer, str] = MappingProxyType(
    {"diffusers": "diffusers", "diffusers-compiled": "diffusers, compiled"}
)


@dataclass(frozen=True, slots=True)
class MeasuredPeer:
    """A peer's runs: medians in seconds of stages, of the steps of every loop, and end to end.

    peak_bytes: of memory. distances: of the latents from ours, relative.
    compiling: how much longer the first run took than later ones, in seconds; None without
        compilation. failed: why there is nothing of all this.
    """

    name: str
    stages: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, float] = field(default_factory=dict)
    end_to_end: float = 0.0
    peak_bytes: int = 0
    distances: Mapping[str, float] = field(default_factory=dict)
    compiling: float | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class DiffusersResult:
    """The outputs of diffusers, with time and memory.

    stages: name and seconds, in order; names are this engine's where the stage is the same.
    steps: seconds of every step, by the name of the loop.
    seconds: end to end, from the request to frames and sound on the CPU.
    peak_bytes: of the process on its device; see `Stopwatch`.
    latents: named, shaped and normalised as in `Result`, float32 on the CPU.
    frames: [frames, height, width, 3] uint8. audio: [2, samples] float32. Both on the CPU.
    """

    stages: list[tuple[str, float]]
    steps: dict[str, list[float]]
    seconds: float
    peak_bytes: int
    latents: dict[str, Tensor]
    frames: Tensor
    audio: Tensor


def latent_distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, float]:
    """|ours - theirs| / |ours| by latent, in float64; raises ValueError where the names differ."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"there are {sorted(ours)} on one side and {sorted(theirs)} on the other")
    distances = {}
    for name, latent in ours.items():
        reference = latent.double()
        distances[name] = float((reference - theirs[name].double()).norm() / reference.norm())
    return distances
