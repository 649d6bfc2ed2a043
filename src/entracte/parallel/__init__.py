"""One video on several devices: its video tokens and guidance passes are shared out over them.

Every device runs the same request with its own device manager and holds all latents; what they
share is the transformer's work. Nothing is summed across devices, so that the bits are those of one
device wherever its products and attentions do not depend on how many rows and heads they are given.
"""

from .group import Group
from .mesh import Mesh, SpreadTransformer

__all__ = ["Group", "Mesh", "SpreadTransformer"]
