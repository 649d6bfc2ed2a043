"""Guidance: combining the predictions of several passes into one."""

from dataclasses import dataclass

from torch import Tensor

from entracte.recipes import Guidance


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
