"""The LTX-2.3 transformer."""

from .config import TransformerConfig
from .model import StreamInput, StreamRotary, Transformer, Velocity
from .modulation import TokenRun, runs_of
from .passes import Pass

__all__ = [
    "Pass",
    "StreamInput",
    "StreamRotary",
    "TokenRun",
    "Transformer",
    "TransformerConfig",
    "Velocity",
    "runs_of",
]
