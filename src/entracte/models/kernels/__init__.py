"""How the transformer's blocks are run: fused kernels and captured graphs on GPUs."""

import logging
from typing import Literal

import torch

from entracte.models.transformer.execution import BlockLoop, RunBlocks, run_blocks

logger = logging.getLogger(__name__)

# auto: fused kernels. captured: from CUDA graphs, too, where that pays. plain: torch's operators.
Kernels = Literal["auto", "captured", "plain"]


def block_runner(device: torch.device, kernels: Kernels) -> RunBlocks:
    """How blocks are run on a device, which is to be the current one then.

    Devices that are not CUDA's, or do not multiply bfloat16, have the plain way only.
    """
    if device.type != "cuda" or kernels == "plain":
        return run_blocks
    with torch.cuda.device(device):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return run_blocks
    try:
        from .elementwise import FusedElementwise
        from .graphs import CapturedBlocks
    except ImportError as error:
        logger.warning("Steps will take a third longer than they could: no Triton (%s)", error)
        return run_blocks
    if kernels == "captured":
        return CapturedBlocks(FusedElementwise(), device).run
    return BlockLoop(FusedElementwise()).run
