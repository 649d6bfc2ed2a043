"""Guidance: combining the predictions of several passes into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor  # requests are checked in places that need no torch


@dataclass(frozen=True, slots=True)
class Guidance:
    """How strongly one stream is guided.

    cfg: away from the unconditioned prediction; 1 is off.
    stg: away from the prediction with self-attention skipped in `stg_blocks` (None: where the
        version's default says); 0 is off.
    modality: away from the prediction with video and audio isolated; 1 is off.
    rescale: how much of the conditioned prediction's deviation is restored, 0 to 1.
    """

    cfg: float = 1.0
    stg: float = 0.0
    stg_blocks: tuple[int, ...] | None = None
    modality: float = 1.0
    rescale: float = 0.0


@dataclass(frozen=True, slots=True)
class Predictions:
    """Denoised predictions of one stream, [1, tokens, channels] float32; None where not made."""

    conditioned: Tensor
    unconditioned: Tensor | None = None
    skipped: Tensor | None = None
    isolated: Tensor | None = None


def guide(predictions: Predictions, guidance: Guidance) -> Tensor:
    """Combine predictions: c + (cfg-1)(c-n) + stg(c-p) + (modality-1)(c-m), then rescale.

    Source: classifier-free guidance (arXiv 2207.12598), spatiotemporal skip guidance (arXiv
    2411.18664), rescaling (arXiv 2305.08891). A prediction that is missing adds nothing.
    """
    c = predictions.conditioned
    guided = c
    for other, weight in (
        (predictions.unconditioned, guidance.cfg - 1),
        (predictions.skipped, guidance.stg),
        (predictions.isolated, guidance.modality - 1),
    ):
        if other is not None and weight != 0:
            guided = guided + weight * (c - other)
    if guidance.rescale != 0:
        factor = c.std() / guided.std()
        guided = guided * (guidance.rescale * factor + (1 - guidance.rescale))
    return guided
