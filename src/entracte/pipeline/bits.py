"""Whether the ranks of a group make the bits of one GPU: probed once for a device and a shape."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from entracte.checkpoints.sources import ModelSource
from entracte.machine.proofs import keep_answers, known_answers
from entracte.machine.survey import identity_of
from entracte.models.connectors import CONTEXT_TOKENS
from entracte.models.transformer import TransformerConfig
from entracte.notices import Notice
from entracte.parallel import Layout
from entracte.parallel.probe import BitsProbe, SharedShape
from entracte.residency import Backend, device_errors

from .resolved import ResolvedRequest

logger = logging.getLogger(__name__)


def notices_of_bits(
    backend: Backend,
    dtype: torch.dtype,
    source: ModelSource,
    resolved: ResolvedRequest,
    layouts: Sequence[Layout],
) -> tuple[Notice, ...]:
    """What of a request ranks that share tokens compute with other bits than one GPU does.

    Only GPUs are probed: on a CPU the order of sums depends on the number of rows.
    """
    shapes = shared_shapes(resolved, layouts)
    if backend.device.type != "cuda" or not shapes:
        return ()
    config = TransformerConfig.from_header(source.components["transformer"].config)
    identity = identity_of(backend, dtype)
    known = known_answers(identity)
    new = [shape for shape in shapes if str(shape) not in known]
    for shape in new:
        try:
            with torch.cuda.device(backend.device), device_errors("probing bits"):
                known[str(shape)] = BitsProbe(config, shape, backend.device, dtype).differing()
        except RuntimeError as error:  # no memory for it
            logger.warning("whether ranks make the bits of one GPU was not found out: %s", error)
            return ()
    if new:
        torch.cuda.empty_cache()
        keep_answers(identity, known)
    words = sorted({each for shape in shapes for each in known[str(shape)]})
    if not words:
        return ()
    message = (
        f"several GPUs make other bits than one, by rounding, in {', '.join(words)}; "
        "where only guidance passes are shared out, they do not"
    )
    logger.warning("%s: %s", backend.device, message)
    return (Notice(Path(str(backend.device)), message),)


def shared_shapes(resolved: ResolvedRequest, layouts: Sequence[Layout]) -> list[SharedShape]:
    """What the ranks of rows share out in each phase."""
    found = []
    for phase, layout in zip(resolved.phases, layouts, strict=True):
        if layout.row == 1:
            continue
        passes = -(-len(phase.guidance.passes()) // layout.rows)
        found.append(
            SharedShape(
                rows=min(phase.rows_at_once, passes),
                tokens=phase.grid.tokens + resolved.appended_tokens(phase),
                audio=resolved.request.audio_tokens,
                text=CONTEXT_TOKENS,
                ranks=layout.row,
            )
        )
    return list(dict.fromkeys(found))
