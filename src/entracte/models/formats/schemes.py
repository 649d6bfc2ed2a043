"""Which weights published files store in which format.

They quantise the linears of the transformer's blocks, but for the first two and the last two, and
those of the text encoder's. GGUF files quantise all blocks; their mixes give some linears more
bits.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from . import Float8, Format, Ggml, Int8, Mxfp8, Nvfp4, ScaledFloat8
from .ggml import TYPES

TRANSFORMER = "transformer_blocks"
GATES = "to_gate_logits"

# Of GGUF's mixes "_M", those that the given type is too coarse for, and what they are in.
IMPORTANT = ("to_v.weight", "net.2.weight", "v_proj.weight", "down_proj.weight")
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


def format_in(scheme: str, parameter: str, blocks: str, count: int) -> Format | None:
    """The format of one of a component's parameters; None: bfloat16.

    scheme: one of `SCHEMES`. parameter: as the component calls it. blocks: the name of its list of
    blocks. count: how many it has.
    """
    number, _, name = parameter.removeprefix(f"{blocks}.").partition(".")
    if not parameter.startswith(f"{blocks}.") or not _is_linear(name):
        return None
    whole = scheme.startswith("gguf-") or blocks != TRANSFORMER or count < 8
    ends = 0 if whole else 2
    return SCHEMES[scheme](name) if ends <= int(number) < count - ends else None


def _is_linear(name: str) -> bool:
    return name.endswith(".weight") and "norm" not in name
