"""Which weights of a model are multiplied in float8, and in which form."""

from collections.abc import Mapping
from dataclasses import replace

from entracte.errors import CheckpointError
from entracte.models.float8 import PRODUCT_MULTIPLE
from entracte.models.formats import Part, ScaledFloat8
from entracte.models.formats.products import float8_parts, multiplies

from .sources import ComponentSource, ModelSource

TRANSFORMER = "transformer"


def in_float8(source: ModelSource) -> ModelSource:
    """The same model, with a transformer whose blocks multiply in float8: approximate.

    A file with weights in float8 and scales of theirs says which ones; they are used as they are.
    Else the linears of all blocks but the first two and the last two are quantised as they arrive.
    Raises CheckpointError where the file says to multiply none in float8.
    """
    components = dict(source.components)
    if TRANSFORMER in components:
        transformer = components[TRANSFORMER]
        weights = _weights(transformer, source.version.blocks[TRANSFORMER])
        if not weights:
            raise CheckpointError(
                "precision fp8: the transformer has no weights to multiply in float8; "
                + _reason(transformer)
            )
        components[TRANSFORMER] = replace(transformer, float8=weights)
    return replace(source, components=components, precision="fp8")


def _weights(transformer: ComponentSource, blocks: str) -> dict[str, Mapping[str, Part]]:
    tensors = transformer.tensors
    scaled = [name for name, each in tensors.items() if isinstance(each.info.format, ScaledFloat8)]
    if scaled:
        return {
            name: {end: (part.dtype, part.shape) for end, part in tensors[name].info.parts.items()}
            for name in scaled
            if multiplies(tensors[name].info.format)
            and all(length % PRODUCT_MULTIPLE == 0 for length in tensors[name].info.shape)
        }
    count = transformer.block_count(blocks)
    found = {
        name: float8_parts(name, each.info.shape, blocks, count) for name, each in tensors.items()
    }
    return {name: parts for name, parts in found.items() if parts is not None}


def _reason(transformer: ComponentSource) -> str:
    formats = {each.info.format for each in transformer.tensors.values()}
    if any(isinstance(each, ScaledFloat8) and each.full_precision for each in formats):
        return "its file says full_precision_matrix_mult: use precision exact"
    if any(isinstance(each, ScaledFloat8) for each in formats):
        return "its file has none in float8_e4m3fn: use precision exact"
    return f"its linears are not multiples of {PRODUCT_MULTIPLE} wide"
