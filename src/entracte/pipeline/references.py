"""Control videos: what of them a phase attends to, and how they are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from entracte.binding import BoundRequest
from entracte.checkpoints.lora import ReferenceScale
from entracte.conditions import ControlVideo
from entracte.errors import MediaError, RequestError
from entracte.frame_rates import exact_rate
from entracte.media.images import fit
from entracte.media.read_video import Resampling, VideoFacts, read_frames
from entracte.models.video_vae import SPATIAL_SCALE, TEMPORAL_SCALE
from entracte.recipes import Phase
from entracte.sampling.tokens import VideoGrid


@dataclass(frozen=True, slots=True)
class Reference:
    """A control video as a phase attends to it.

    grid: of its latents, with the frame rate of the video that is made. scale: how much smaller it
    is. weighed: whether attention to it is.
    """

    grid: VideoGrid
    scale: ReferenceScale
    strength: float
    weighed: bool

    @property
    def frames(self) -> int:
        """How many of its pixel frames are encoded."""
        return (self.grid.frames - 1) * TEMPORAL_SCALE + 1

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of these frames, in pixels."""
        return self.grid.height * SPATIAL_SCALE, self.grid.width * SPATIAL_SCALE

    @property
    def read(self) -> range:
        """The numbers of these frames but the first, which is 0."""
        step = self.scale.temporal
        return range(1, 1 + (self.frames - 1) * step, step)

    def spans(self) -> Tensor:
        """[start, end) of its tokens: [3, tokens, 2]; see `VideoGrid.reference_spans`."""
        return self.grid.reference_spans(self.scale.downscale, self.scale.temporal)


@dataclass(frozen=True, slots=True)
class GivenControl:
    """A control video, read: what `VideoVae.encode` takes.

    pixels: [1, 3, frames, height, width] bfloat16 in -1..1. weights: how much the video attends to
    each of its tokens, [tokens] bfloat16; None: to all as to its own.
    """

    pixels: Tensor
    weights: Tensor | None
    reference: Reference


@dataclass(frozen=True, slots=True)
class EncodedControl:
    """A control video as latents [1, channels, frames, height, width], normalised."""

    latent: Tensor
    weights: Tensor | None
    reference: Reference


def references_of(
    bound: BoundRequest,
    phase: Phase,
    grid: VideoGrid,
    scale: ReferenceScale,
    facts: Sequence[VideoFacts | None],
) -> tuple[Reference, ...]:
    """The control videos of a request as a phase attends to them.

    grid: of the phase. facts: of every control video; None: it is as long as the video.
    Raises RequestError where the phase's size cannot be divided for them.
    """
    if not phase.sees_control:
        return ()
    down = scale.downscale
    for name, places in (("height", grid.height), ("width", grid.width)):
        if places % down and bound.controls:
            multiple = SPATIAL_SCALE * phase.divisor * down
            raise RequestError(
                f"{name}: the IC-LoRA looks at control videos of 1/{down} of the size, so it must "
                f"be a multiple of {multiple}"
            )
    small = replace(grid, height=grid.height // down, width=grid.width // down)
    return tuple(
        Reference(
            replace(small, frames=_latent_frames(bound, each, scale)),
            scale,
            control.strength,
            control.attention != 1 or control.mask is not None,
        )
        for control, each in zip(bound.controls, facts, strict=True)
    )


def _latent_frames(bound: BoundRequest, facts: VideoFacts | None, scale: ReferenceScale) -> int:
    frames = bound.num_frames
    if facts is not None:
        rate = exact_rate(bound.frame_rate)
        frames = max(1, min(frames, int(facts.frames * rate / facts.frame_rate)))
    kept = 1 + (frames - 2) // scale.temporal + 1 if frames > 1 else 1
    return (kept - 1) // TEMPORAL_SCALE + 1


def read_control(
    control: ControlVideo, reference: Reference, rate: Fraction, resampling: Resampling
) -> GivenControl:
    """Read a control video, and its mask. rate: of the video that is made.

    Raises MediaError for one that cannot be used.
    """
    height, width = reference.sides
    pixels = torch.empty((1, 3, reference.frames, height, width), dtype=torch.bfloat16)
    for number, frame in enumerate(_frames(control.path, reference, rate, resampling)):
        pixels[:, :, number : number + 1] = fit(frame, height, width)
    return GivenControl(pixels, _weights(control, reference, rate), reference)


def _frames(
    path: Path, reference: Reference, rate: Fraction, resampling: Resampling
) -> Iterator[np.ndarray]:
    """Those that are encoded."""
    wanted = {0, *reference.read}
    for number, frame in enumerate(read_frames(path, max(wanted) + 1, rate, resampling)):
        if number in wanted:
            yield frame


def _weights(control: ControlVideo, reference: Reference, rate: Fraction) -> Tensor | None:
    """See `GivenControl`. A mask is averaged over the pixels and frames of every token."""
    if not reference.weighed:
        return None
    grid = reference.grid
    if control.mask is None:
        return torch.full((grid.tokens,), control.attention, dtype=torch.bfloat16)
    height, width = (side * reference.scale.downscale for side in reference.sides)
    areas = []
    try:
        for frame in _frames(control.mask, reference, rate, Resampling()):
            grey = fit(frame, height, width)[0].bfloat16().mean(dim=0)
            shares = ((grey + 1) / 2).clamp(0, 1)
            areas.append(F.interpolate(shares[None], size=(grid.height, grid.width), mode="area"))
    except MediaError as error:
        raise MediaError(f"the mask of a control video: {error}") from None
    shown = torch.cat(areas)[:, 0]  # [frames, height, width]
    later = (
        shown[1:].unflatten(0, (-1, TEMPORAL_SCALE)).mean(dim=1) if len(shown) > 1 else shown[1:]
    )
    weights: Tensor = (torch.cat([shown[:1], later]) * control.attention).flatten()
    return weights
