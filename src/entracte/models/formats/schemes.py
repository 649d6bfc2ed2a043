"""Which of the transformer's weights published files store in which format.

They quantise the linears of all blocks but the first two and the last two. GGUF files quantise all
blocks; their mixes give some linears more bits.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from . import Float8, Format, Ggml, Int8, Mxfp8, Nvfp4, ScaledFloat8
from .ggml import TYPES

BLOCKS = "transformer_blocks."
GATES = "to_gate_logits"

# Of GGUF's mixes "_M", those that the given type is too coarse for, and what they are in.
IMPORTANT = ("to_v.weight", "net.2.weight")
MIXES = {"q4_k_m": ("Q4_K", "Q6_K"), "q5_k_m": ("Q5_K", "Q6_K"), "q3_k_m": ("Q3_K", "Q5_K")}

# A weight's format, by its name in its block; None: bfloat16.
Choose = Callable[[str], Format | None]


def _uniform(weight_format: Format, gates: bool = False) -> Choose:
    return lambda name: weight_format if gates or GATES not in name else None


def _mixed(most: str, important: str) -> Choose:
    def choose(name: str) -> Format | None:
        return None if GATES in name else Ggml(important if name.endswith(IMPORTANT) else most)

    return choose


SCHEMES: Mapping[str, Choose] = MappingProxyType(
    {
        "fp8": _uniform(ScaledFloat8(torch.float8_e4m3fn), gates=True),
        "fp8-plain": _uniform(Float8(torch.float8_e4m3fn)),
        "nvfp4": _uniform(Nvfp4(high_first=True, blocked=True)),
        "mxfp8": _uniform(Mxfp8()),
        "int8": _uniform(Int8()),
        "int8-convrot": _uniform(Int8(256)),
        **{f"gguf-{name.lower()}": _uniform(Ggml(name)) for name in TYPES},
        **{f"gguf-{name}": _mixed(*types) for name, types in MIXES.items()},
    }
)


def format_in(scheme: str, parameter: str, blocks: int) -> Format | None:
    """The format of one of the transformer's parameters; None: bfloat16.

    scheme: one of `SCHEMES`. parameter: as the transformer calls it. blocks: how many it has.
    """
    number, _, name = parameter.removeprefix(BLOCKS).partition(".")
    if not parameter.startswith(BLOCKS) or not _is_linear(name):
        return None
    ends = 0 if scheme.startswith("gguf-") or blocks < 8 else 2
    return SCHEMES[scheme](name) if ends <= int(number) < blocks - ends else None


def _is_linear(name: str) -> bool:
    return name.endswith(".weight") and "norm" not in name
