"""The LTX-2.3 transformer."""

from .config import TransformerConfig
from .model import StreamInput, StreamRotary, Transformer, Velocity
from .modulation import Run, runs_of
from .passes import Pass

__all__ = [
    "Pass",
    "Run",
    "StreamInput",
    "StreamRotary",
    "Transformer",
    "TransformerConfig",
    "Velocity",
    "runs_of",
]
