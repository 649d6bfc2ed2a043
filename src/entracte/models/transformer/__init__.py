"""The LTX-2.3 transformer."""

from .config import TransformerConfig
from .execution import RunBlocks, Sweep, run_blocks
from .model import StreamInput, StreamRotary, Transformer, Velocity
from .modulation import TokenRun, runs_of
from .passes import Pass

__all__ = [
    "Pass",
    "RunBlocks",
    "StreamInput",
    "StreamRotary",
    "Sweep",
    "TokenRun",
    "Transformer",
    "TransformerConfig",
    "Velocity",
    "run_blocks",
    "runs_of",
]
