"""What becomes of one tensor: copied as it is stored, expanded, merged, or quantised."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from entracte.errors import CheckpointError
from entracte.models.formats import Float8, Format, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.quantise import Writable, inputs_in_group, quantise
from entracte.models.formats.schemes import SCHEMES, format_in
from entracte.residency import Change, WeightMerge

from ..quantised import BESIDE
from ..safetensors_file import SafetensorsFile
from ..sources import Located
from ..write_safetensors import NewTensors, one_tensor, said_of

BFLOAT16 = "bf16"

# The schemes that can be written, besides bfloat16.
WRITTEN = ("fp8", "fp8-plain", "nvfp4", "mxfp8", "int8", "int8-convrot")

# What older files call scales.
LEGACY = {"scale_weight": "weight_scale", "scale_input": "input_scale"}

# Reads the change that a LoRA makes, and its strength.
ReadChange = Callable[[], tuple[Change, float]]


@dataclass(frozen=True, slots=True)
class NewFormats:
    """What the tensors of one component become.

    scheme: one of `WRITTEN`, or `BFLOAT16`; None: as they are stored.
    held: the dtype in which the engine holds what is not quantised; None: that of the file.
    blocks: the name of its list of blocks, if it has one. count: how many there are.
    """

    scheme: str | None
    held: torch.dtype | None
    blocks: str | None = None
    count: int = 0

    def format_of(self, parameter: str, stored: Format | None) -> Writable | None:
        """The format that a parameter is to have; None: plain numbers.

        What already is in the scheme's format stays so, even where published files have bfloat16.
        """
        if self.scheme is None or self.scheme == BFLOAT16 or self.blocks is None:
            return None
        own = _writable(SCHEMES[self.scheme](parameter))
        relaid = isinstance(stored, Nvfp4) and isinstance(own, Nvfp4)
        if own is not None and (relaid or _alike(stored, own)):
            return own
        return _writable(format_in(self.scheme, parameter, self.blocks, self.count))


@dataclass(frozen=True, slots=True)
class NewWeight:
    """A tensor as it is to be written.

    format: that of a quantised one. said: what the header is to say of its layer, if anything.
    """

    tensors: NewTensors
    format: Format | None = None
    said: object = None


def new_weight(
    key: str,
    located: Located,
    parameter: str,
    formats: NewFormats,
    changes: Sequence[ReadChange] = (),
    said: object = None,
) -> NewWeight:
    """What becomes of a tensor.

    key: in the new file. parameter: as its component calls it. changes: of LoRAs, in order. said:
    what the header of its file says of its layer, if anything.
    Raises CheckpointError for what cannot be written.
    """
    info = located.info
    wanted = formats.format_of(parameter, info.format)
    if not changes and info.format is not None:
        if formats.scheme is None or (wanted is not None and _alike(info.format, wanted)):
            return _as_stored(key, located, said)
        if isinstance(info.format, Nvfp4) and isinstance(wanted, Nvfp4):
            return _quantised(key, located, wanted, partial(_relaid, located, info.format))
    elif formats.scheme is None and info.format is not None:
        raise CheckpointError(
            f"{located.file.path}: {located.key} is quantised ({info.kind}), and a LoRA changes "
            f"it: say what to write (`to`), such as {BFLOAT16}",
            settings=("to",),
        )
    if wanted is not None:
        read = partial(_expanded, located, torch.bfloat16, changes)
        return _quantised(key, located, wanted, lambda: quantise(wanted, read()))
    dtype = info.dtype
    if formats.held is not None and (changes or formats.scheme is not None):
        dtype = formats.held
    if changes:
        read = partial(_expanded, located, dtype, changes)
        tensors = NewTensors({key: (dtype, info.shape)}, lambda: {key: read()})
    else:
        tensors = one_tensor(key, (dtype, info.shape), located.read)
    return NewWeight(tensors)


def _as_stored(key: str, located: Located, said: object) -> NewWeight:
    """All that the file has of a quantised weight, byte for byte, scales of inputs too."""
    file, info = located.file, located.info
    if not isinstance(file, SafetensorsFile) or info.format is None:
        raise CheckpointError(
            f"{file.path}: {located.key} is in {info.kind}, which only GGUF files hold: say what "
            f"to write (`to`), such as {BFLOAT16}",
            settings=("to",),
        )
    layer, new_layer = (each.removesuffix("weight") for each in (located.key, key))
    leaves = [leaf for leaf in ("weight", *BESIDE) if layer + leaf in file.stored]
    older = LEGACY["scale_weight"] not in leaves and "scale_weight" in leaves
    if older and "scale_input" in leaves and file.read_alone(f"{layer}scale_input").item() == 1:
        leaves.remove("scale_input")  # there it means that there is none
    stored = {new_layer + LEGACY.get(leaf, leaf): layer + leaf for leaf in leaves}
    parts = {
        new: (file.stored[name].dtype, file.stored[name].shape) for new, name in stored.items()
    }

    def make() -> Mapping[str, Tensor]:
        return {new: file.read_alone(name) for new, name in stored.items()}

    if said is None and older:
        said = said_of(info.format)
    return NewWeight(NewTensors(parts, make), info.format, said)


def _quantised(
    key: str, located: Located, wanted: Writable, make: Callable[[], Mapping[str, Tensor]]
) -> NewWeight:
    """make: what is stored of it, by the ends of names."""
    rows, columns = located.info.shape
    group = inputs_in_group(wanted)
    if columns % group:
        raise CheckpointError(
            f"{located.file.path}: {located.key} has {columns} inputs, which {wanted.name} cannot "
            f"divide into groups of {group}"
        )
    parts = {key + end: part for end, part in wanted.parts(rows, columns).items()}

    def by_key() -> Mapping[str, Tensor]:
        return {key + end: tensor for end, tensor in make().items()}

    return NewWeight(NewTensors(parts, by_key), wanted, said_of(wanted))


def _expanded(located: Located, dtype: torch.dtype, changes: Sequence[ReadChange]) -> Tensor:
    """A weight as the engine computes with it, merged. Raises CheckpointError for NaN."""
    weight = torch.empty(located.info.shape, dtype=dtype)
    located.read(weight)
    if changes:
        adapters = tuple(read() for read in changes)
        WeightMerge(weight, weight, adapters).carry_out()
    if not weight.sum(dtype=torch.float32).isfinite() and not weight.isfinite().all():
        raise CheckpointError(f"{located.file.path}: {located.key} has numbers that are not finite")
    return weight


def _relaid(located: Located, weight_format: Nvfp4) -> Mapping[str, Tensor]:
    """nvfp4 of another producer, as the published files lay it out."""
    stored = {}
    for end, part in located.info.parts.items():
        stored[end] = torch.empty(part.shape, dtype=part.dtype)
        located.file.read_stored(located.key, end, stored[end])
    return weight_format.as_published(stored, located.info.shape[0])


def _alike(stored: Format | None, wanted: Writable) -> bool:
    """Whether a weight can stay as it is; how it is multiplied does not matter."""
    if isinstance(stored, ScaledFloat8):
        stored = ScaledFloat8(stored.dtype)
    return stored == wanted


def _writable(weight_format: Format | None) -> Writable | None:
    assert weight_format is None or isinstance(
        weight_format, Float8 | ScaledFloat8 | Nvfp4 | Mxfp8 | Int8
    )
    return weight_format
