"""How the transformer's blocks and the decoders are run: on GPUs, fused kernels and graphs."""

import logging
from typing import Literal

import torch

from entracte.models.decoders import PLAIN, Decoders
from entracte.models.transformer.execution import BlockLoop, RunBlocks, run_blocks

from .graphs import AudioStream, CapturedBlocks, GraphCapture

logger = logging.getLogger(__name__)

# auto: fused kernels, from graphs where that pays. fused: without graphs. plain: torch's operators.
Kernels = Literal["auto", "fused", "plain"]

# On a device that does not hold so much more than the transformer, blocks are copied in every step,
# which takes longer than to launch them; and the memory of graphs is better used for blocks.
ROOM_FOR_GRAPHS = 1.5


def graphs_pay(transformer: int, device_memory: int) -> bool:
    """Whether a device, of so many bytes, is to run a transformer of so many from graphs."""
    return ROOM_FOR_GRAPHS * transformer <= device_memory


def block_runner(device: torch.device, kernels: Kernels, transformer: int) -> RunBlocks:
    """How blocks are run on a device, which is to be the current one then.

    Devices that are not CUDA's, or do not multiply bfloat16, have the plain way only.
    transformer: bytes of its weights.
    """
    if device.type != "cuda" or kernels == "plain":
        return run_blocks
    with torch.cuda.device(device):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return run_blocks
    try:
        from .elementwise import FusedElementwise
    except ImportError as error:
        logger.warning("Steps will take a third longer than they could: no Triton (%s)", error)
        return run_blocks
    memory = torch.cuda.get_device_properties(device).total_memory
    if kernels == "auto" and graphs_pay(transformer, memory):
        capture, lanes = GraphCapture(device), AudioStream(device)
        return CapturedBlocks(FusedElementwise(), capture, lanes).run
    return BlockLoop(FusedElementwise()).run


def decoders(run: RunBlocks) -> Decoders:
    """How decoders are run on a device: the plain way where blocks are."""
    if run is run_blocks:
        return PLAIN
    from .decoding import FusedDecoders

    return FusedDecoders()
