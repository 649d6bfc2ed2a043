"""Model files made from others: quantised, expanded, with LoRAs merged in, split or joined."""

from .plan import Conversion, NewFile, plan_conversion
from .weights import BFLOAT16, WRITTEN
from .write import check_room, write_conversion

__all__ = [
    "BFLOAT16",
    "WRITTEN",
    "Conversion",
    "NewFile",
    "check_room",
    "plan_conversion",
    "write_conversion",
]
