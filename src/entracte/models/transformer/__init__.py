"""The transformer of LTX-2."""

from .attention import attend
from .config import TransformerConfig
from .exchange import ONE_DEVICE, Awaited, Exchange, HeadRoom
from .execution import RunBlocks, Sweep, run_blocks
from .model import Evaluate, StreamInput, StreamRotary, Transformer, Velocity
from .modulation import TokenRun, runs_of
from .passes import Pass
from .rotary import Rotary

__all__ = [
    "ONE_DEVICE",
    "Awaited",
    "Evaluate",
    "Exchange",
    "HeadRoom",
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
