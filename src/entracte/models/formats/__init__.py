"""The formats that weights are stored in: how each expands, and the linear that computes from it.

A format is a class here, with what the device manager needs of it (`residency.WeightFormat`); how
files say that they have it is in `checkpoints`.
"""

from .block_scaled import Mxfp8, Nvfp4
from .float8 import Float8, ScaledFloat8
from .ggml import Ggml
from .int8 import Int8
from .linear import StoredLinear, compute_from_stored
from .rows import Part

# Those that a model's weights may have.
Format = Float8 | ScaledFloat8 | Nvfp4 | Mxfp8 | Int8 | Ggml

__all__ = [
    "Float8",
    "Format",
    "Ggml",
    "Int8",
    "Mxfp8",
    "Nvfp4",
    "Part",
    "ScaledFloat8",
    "StoredLinear",
    "compute_from_stored",
]
