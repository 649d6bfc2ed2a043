"""What all runs on an open model share."""

from dataclasses import dataclass

import torch

from entracte.models.calls import Call
from entracte.models.connectors import TextContext
from entracte.models.decoders import Decoders
from entracte.models.transformer import RunBlocks, StreamRotary
from entracte.parallel import Mesh
from entracte.residency import DeviceManager, WeightSet
from entracte.sampling.tokens import VideoGrid

from .cache import Cache
from .preview import Previewer
from .references import Reference

# By a prompt's token ids, and the weights of the connectors.
Contexts = Cache[tuple[tuple[int, ...], WeightSet], TextContext]

# By grid, audio tokens, image frames and control videos.
RotaryTables = Cache[
    tuple[VideoGrid, int, tuple[int, ...], tuple[Reference, ...]],
    tuple[StreamRotary, StreamRotary],
]

# By the dtype that they were fitted in.
Previewers = Cache[torch.dtype, Previewer]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Weights, caches, and how models are run. mesh: where several devices make each video."""

    manager: DeviceManager
    device: torch.device
    dtype: torch.dtype
    latent_channels: int
    contexts: Contexts
    rotary: RotaryTables
    previewers: Previewers
    run_blocks: RunBlocks
    calls: Call
    decoders: Decoders
    mesh: Mesh | None = None
