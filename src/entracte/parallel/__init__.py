"""One video on several devices: its video tokens and guidance passes are shared out over them.

Every device runs the same request with its own device manager and holds all latents; what they
share is the transformer's work. Nothing is summed across devices, so that the bits are those of one
device wherever its products and attentions do not depend on how many rows and heads they are given.
"""

from .layout import ONE_RANK, Layout, Parallel, default_layout, layouts
from .mesh import Mesh, SpreadTransformer, row_cost, share_passes
from .ranks import Connect, Ranks, connecting
from .row_exchange import slots_of
from .tiles import SpreadTiles

__all__ = [
    "ONE_RANK",
    "Connect",
    "Layout",
    "Mesh",
    "Parallel",
    "Ranks",
    "SpreadTiles",
    "SpreadTransformer",
    "connecting",
    "default_layout",
    "layouts",
    "row_cost",
    "share_passes",
    "slots_of",
]
