"""The LTX-2.3 transformer."""

from .attention import ONE_DEVICE, Exchange, attend
from .config import TransformerConfig
from .execution import RunBlocks, Sweep, run_blocks
from .model import Evaluate, StreamInput, StreamRotary, Transformer, Velocity
from .modulation import TokenRun, runs_of
from .passes import Pass
from .rotary import Rotary

__all__ = [
    "ONE_DEVICE",
    "Evaluate",
    "Exchange",
    "Pass",
    "Rotary",
    "RunBlocks",
    "StreamInput",
    "StreamRotary",
    "Sweep",
    "TokenRun",
    "Transformer",
    "TransformerConfig",
    "Velocity",
    "attend",
    "run_blocks",
    "runs_of",
]
