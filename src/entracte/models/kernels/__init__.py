"""How models are run: on GPUs, fused kernels and graphs."""

import logging
from dataclasses import dataclass
from typing import Literal

import torch

from entracte.models.calls import Call, call_plainly
from entracte.models.decoders import PLAIN, Decoders
from entracte.models.transformer.execution import BlockLoop, RunBlocks, run_blocks

from .calls import CapturedCalls
from .capture import GraphCapture
from .graphs import AudioStream, CapturedBlocks

logger = logging.getLogger(__name__)

# auto: fused kernels, from graphs where that pays. fused: without graphs. plain: torch's operators.
Kernels = Literal["auto", "fused", "plain"]

# On a device that does not hold so much more than the transformer, blocks are copied in every step,
# which takes longer than to launch them; and the memory of graphs is better used for blocks.
ROOM_FOR_GRAPHS = 1.5


def graphs_pay(transformer: int, device_memory: int) -> bool:
    """Whether a device, of so many bytes, is to run a transformer of so many from graphs."""
    return ROOM_FOR_GRAPHS * transformer <= device_memory


@dataclass(frozen=True, slots=True)
class Execution:
    """How models are run on a device; the plain way by default.

    blocks: the loop over the transformer's. calls: of the text encoder's layers. graphs: both are
    run from captured graphs, where batches and prompts are small enough, and the memory of these is
    kept.
    """

    blocks: RunBlocks = run_blocks
    calls: Call = call_plainly
    decoders: Decoders = PLAIN
    graphs: bool = False


def execution(device: torch.device, kernels: Kernels, transformer: int) -> Execution:
    """How models are run on a device, which is to be the current one then.

    Devices that are not CUDA's, or do not multiply bfloat16, have the plain way only.
    transformer: bytes of its weights.
    """
    if device.type != "cuda" or kernels == "plain":
        return Execution()
    with torch.cuda.device(device):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            return Execution()
    try:
        from .decoding import FusedDecoders
        from .elementwise import FusedElementwise
    except ImportError as error:
        logger.warning("Steps will take a third longer than they could: no Triton (%s)", error)
        return Execution()
    memory = torch.cuda.get_device_properties(device).total_memory
    if kernels == "auto" and graphs_pay(transformer, memory):
        capture, lanes = GraphCapture(device), AudioStream(device)
        blocks = CapturedBlocks(FusedElementwise(), capture, lanes).run
        return Execution(blocks, CapturedCalls(capture).run, FusedDecoders(), graphs=True)
    return Execution(BlockLoop(FusedElementwise()).run, decoders=FusedDecoders())
