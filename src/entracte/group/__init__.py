"""The processes that make one video together, one a device: started, told what to do, and ended.

Rank 0 is the leader: the process that has the caller, with an engine like any other's. The others
follow: each opens the same model on its own device and carries out what the leader tells it.
"""

from .launched import follow_launched
from .leader import Leader
from .member import ALONE, Alone, Follows, Member, OpenFollower, SharedOrder

__all__ = [
    "ALONE",
    "Alone",
    "Follows",
    "Leader",
    "Member",
    "OpenFollower",
    "SharedOrder",
    "follow_launched",
]
