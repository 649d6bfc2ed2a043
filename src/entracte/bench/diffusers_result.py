"""The result of diffusers, and its distance from ours."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


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
