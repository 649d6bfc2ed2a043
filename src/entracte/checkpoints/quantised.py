"""Recognises quantised weights by the tensors beside them and by what a file says of its layers.

A quantised layer `x` has its numbers in `x.weight`, scales beside it (`x.weight_scale`, …), and
perhaps a word on its format: in the tensor `x.comfy_quant`, in `_quantization_metadata` of the
header or, in older files, in one tensor `scaled_fp8` for all layers. What the tensors do not say
clearly, or say otherwise than the words do, is refused by name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entracte.errors import CheckpointError
from entracte.models.formats import Float8, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.block_scaled import MXFP8_GROUP, NVFP4_GROUP, blocked_shape

from .adapter_keys import of_adapter
from .json_file import parse_object
from .parts import ROOTS
from .recognise import METADATA_MARK
from .tensor_info import TensorInfo, quantised

SCALES = ("weight_scale", "scale_weight")
MARKERS = ("comfy_quant", "torchao_nvfp4")
# Of activations, for products in the format itself.
OF_INPUTS = ("input_scale", "scale_input")
BESIDE = (*SCALES, "weight_scale_2", "pre_quant_scale", *MARKERS, *OF_INPUTS)
LEGACY_MARK = "scaled_fp8"

FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
FORMATS = (*FLOAT8, "nvfp4", "mxfp8", "int8_tensorwise")

# Reads a tensor of the file, by its key.
ReadTensor = Callable[[str], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer's tensors, by the last parts of their names, and what is said of it."""

    path: Path
    name: str
    weight: TensorInfo
    beside: Mapping[str, TensorInfo]
    said: Mapping[str, Any]
    read: ReadTensor

    def wrong(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {self.name}.weight {what}")

    @property
    def matrix(self) -> tuple[int, int]:
        if len(self.weight.shape) != 2:
            raise self.wrong(f"is {list(self.weight.shape)}; only matrices can be quantised")
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def scale(self) -> tuple[str, TensorInfo]:
        """The end of its name, and the tensor."""
        for leaf in SCALES:
            if leaf in self.beside:
                return leaf, self.beside[leaf]
        raise self.wrong(f"is quantised ({self.kind or self.weight.kind}) and has no weight_scale")

    @property
    def kind(self) -> str | None:
        """The format's name, as it is said."""
        return self.said.get("format")


def recognise_weights(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    metadata: Mapping[str, str],
    read: ReadTensor,
) -> dict[str, TensorInfo]:
    """A file's tensors, with each quantised weight as one tensor of its own shape.

    Raises CheckpointError, by name, for formats that are unknown or contradict their tensors, and
    for scales that are missing, of a wrong shape or not finite.
    """
    adapter = of_adapter(tensors)
    said = dict(_said(path, tensors, metadata, read))
    beside: dict[str, dict[str, TensorInfo]] = {}
    for key, info in tensors.items():
        layer, _, leaf = key.rpartition(".")
        if leaf in BESIDE and (not adapter or _is_packed(tensors.get(f"{layer}.weight"))):
            beside.setdefault(layer, {})[leaf] = info
    for layer, found in beside.items():
        if f"{layer}.weight" not in tensors:
            raise CheckpointError(f"{path}: {layer}.{min(found)} has no {layer}.weight beside it")
    layers = [
        _Layer(
            path, name, tensors[f"{name}.weight"], beside.get(name, {}), said.get(name, {}), read
        )
        for name in dict.fromkeys((*beside, *said))
    ]
    linear = _has_linear_scales(layers)
    quantised_weights = {f"{each.name}.weight": _weight(each, linear) for each in layers}
    scaled = any(set(SCALES) & found.keys() for found in beside.values())
    result = {}
    for key, info in tensors.items():
        layer, _, leaf = key.rpartition(".")
        if layer in beside and leaf in BESIDE:
            continue
        if leaf == LEGACY_MARK and (scaled or not adapter):
            continue
        result[key] = quantised_weights.get(key) or _plain(path, key, info, scaled)
    return result


def _is_packed(weight: TensorInfo | None) -> bool:
    """Whether scales can be a factor's; others are sorted out with an adapter's further keys."""
    return weight is not None and weight.dtype.itemsize == 1


def _plain(path: Path, key: str, info: TensorInfo, scaled: bool) -> TensorInfo:
    """A tensor that nothing is said of. scaled: whether other weights of the file have scales."""
    if info.dtype not in FLOAT8.values() or len(info.shape) != 2:
        return info
    if scaled and key.endswith(".weight"):
        raise CheckpointError(
            f"{path}: {key} is {info.kind} without a weight_scale, which other weights of the file "
            "have: the file is not whole"
        )
    return quantised(Float8(info.dtype), info.shape, weight=info)


def _weight(layer: _Layer, linear: bool) -> TensorInfo:
    """A layer's weight, by its format. linear: whether the file's nvfp4 scales are not blocked."""
    if "pre_quant_scale" in layer.beside:
        raise layer.wrong("has a pre_quant_scale (AWQ), which is not supported")
    match layer.kind or _implied(layer):
        case "float8_e4m3fn" | "float8_e5m2" as name:
            return _float8(layer, FLOAT8[name])
        case "nvfp4":
            return _nvfp4(layer, linear)
        case "mxfp8":
            return _mxfp8(layer)
        case "int8_tensorwise":
            return _int8(layer)
        case None:
            return layer.weight
        case other:
            raise layer.wrong(
                f"is quantised ({other!s:.40}), which is not supported; {', '.join(FORMATS)} are"
            )


def _implied(layer: _Layer) -> str | None:
    """The format that a layer's tensors alone mean."""
    dtype, beside = layer.weight.dtype, layer.beside
    if "weight_scale_2" in beside:
        return "nvfp4"
    name = layer.weight.kind
    if not set(SCALES) & beside.keys():
        if set(OF_INPUTS) & beside.keys() and (
            name in FLOAT8 or dtype in (torch.uint8, torch.int8)
        ):
            raise layer.wrong(f"is {name} with a scale of its inputs and none of its own")
        return None
    if dtype is torch.int8:
        return "int8_tensorwise"
    scale = layer.scale[1]
    if name in FLOAT8:
        packed = scale.dtype in (torch.float8_e8m0fnu, torch.uint8)
        return "mxfp8" if packed else name
    if dtype.is_floating_point:
        raise layer.wrong(f"is {name}, and has a scale that it does not need")
    raise layer.wrong(f"is quantised (packed as {name} with scales), in no format that is known")


def _float8(layer: _Layer, dtype: torch.dtype) -> TensorInfo:
    if layer.weight.dtype not in (dtype, torch.uint8):
        raise layer.wrong(f"is {layer.weight.kind}, and the file says {layer.kind}")
    rows, _ = layer.matrix
    parts = {"weight": layer.weight, "_scale": _checked_scale(layer, rows)}
    for end in set(OF_INPUTS) & layer.beside.keys():
        scale = layer.beside[end]
        # Converters write 1 where they know none.
        if scale.parameters == 1 and _positive(layer, end, scale) != 1:
            parts["_input_scale"] = scale
    full_precision = layer.said.get("full_precision_matrix_mult") is True
    return quantised(ScaledFloat8(dtype, full_precision), layer.weight.shape, **parts)


def _positive(layer: _Layer, end: str, scale: TensorInfo) -> float:
    _check_finite(layer, end, scale, ((), (1,), (1, 1)))
    number = layer.read(f"{layer.name}.{end}").item()
    if number <= 0:
        raise layer.wrong(f"has an {end} of {number:g}; it should be above 0")
    return float(number)


def _int8(layer: _Layer) -> TensorInfo:
    if layer.weight.dtype is not torch.int8:
        raise layer.wrong(f"is {layer.weight.kind}, and the file says {layer.kind}")
    rows, columns = layer.matrix
    scale = _checked_scale(layer, rows)
    group = None
    if layer.said.get("convrot"):
        group = layer.said.get("convrot_groupsize", 256)
        if type(group) is not int or group < 4 or 4 ** ((group.bit_length() - 1) // 2) != group:
            raise layer.wrong(f"is rotated in groups of {group!s:.20}, which is no power of 4")
        if columns % group:
            raise layer.wrong(f"has {columns} inputs, not a multiple of its groups of {group}")
    return quantised(Int8(group), layer.weight.shape, weight=layer.weight, _scale=scale)


def _nvfp4(layer: _Layer, linear: bool) -> TensorInfo:
    if layer.weight.dtype is not torch.uint8:
        raise layer.wrong(f"is {layer.weight.kind}; nvfp4 is packed in uint8")
    rows, packed = layer.matrix
    if 2 * packed % NVFP4_GROUP:
        raise layer.wrong(f"has {2 * packed} inputs, not a multiple of nvfp4's {NVFP4_GROUP}")
    scale, of_all = layer.scale[1], layer.beside.get("weight_scale_2")
    if of_all is None:
        raise layer.wrong("is quantised (nvfp4) and has no weight_scale_2")
    if scale.dtype not in (torch.float8_e4m3fn, torch.uint8):
        raise layer.wrong(f"is nvfp4 with a scale in {scale.kind}; it should be float8_e4m3fn")
    _check_finite(layer, "weight_scale_2", of_all, ((), (1,)))
    groups, blocked, high_first = 2 * packed // NVFP4_GROUP, not linear, not linear
    if "torchao_nvfp4" in layer.beside:
        blocked, high_first = bool(_marker(layer).get("is_swizzled_scales", True)), False
    height, width = blocked_shape(rows, groups)
    shapes = [(height, width), (height // 4, width * 4)] if blocked else [(rows, groups)]
    if scale.shape not in shapes:
        raise layer.wrong(f"has a weight_scale of {list(scale.shape)}; nvfp4 has {list(shapes[0])}")
    return quantised(
        Nvfp4(high_first, blocked),
        (rows, 2 * packed),
        weight=layer.weight,
        _scale=scale,
        _scale_2=of_all,
    )


def _mxfp8(layer: _Layer) -> TensorInfo:
    if layer.weight.dtype not in (torch.float8_e4m3fn, torch.uint8):
        raise layer.wrong(f"is {layer.weight.kind}; mxfp8 is float8_e4m3fn")
    rows, columns = layer.matrix
    if columns % MXFP8_GROUP:
        raise layer.wrong(f"has {columns} inputs, not a multiple of mxfp8's {MXFP8_GROUP}")
    _, scale = layer.scale
    wanted = blocked_shape(rows, columns // MXFP8_GROUP)
    if scale.dtype not in (torch.float8_e8m0fnu, torch.uint8) or scale.shape != wanted:
        raise layer.wrong(
            f"has a weight_scale of {list(scale.shape)} in {scale.kind}; mxfp8 has {list(wanted)} "
            "in float8_e8m0fnu"
        )
    return quantised(Mxfp8(), layer.weight.shape, weight=layer.weight, _scale=scale)


def _has_linear_scales(layers: list[_Layer]) -> bool:
    """Whether nvfp4 scales are [out, in / 16], as ModelOpt writes them, by any that show it.

    Where no padding is needed both layouts have the same shape; then it is the blocked one, which
    published files have.
    """
    for layer in layers:
        scale = layer.beside.get("weight_scale")
        if "weight_scale_2" not in layer.beside or scale is None or len(layer.weight.shape) != 2:
            continue
        rows, groups = layer.weight.shape[0], 2 * layer.weight.shape[1] // NVFP4_GROUP
        if scale.shape == (rows, groups) != blocked_shape(rows, groups):
            return "torchao_nvfp4" not in layer.beside
    return False


def _checked_scale(layer: _Layer, rows: int) -> TensorInfo:
    """A scale of all, or of every row."""
    end, scale = layer.scale
    _check_finite(layer, end, scale, ((), (1,), (1, 1), (rows,), (rows, 1)))
    return scale


def _check_finite(
    layer: _Layer, end: str, scale: TensorInfo, shapes: tuple[tuple[int, ...], ...]
) -> None:
    if scale.shape not in shapes or not scale.dtype.is_floating_point or scale.dtype.itemsize < 2:
        raise layer.wrong(
            f"has a {end} of {list(scale.shape)} in {scale.kind}; it should be one float32"
            + (f", or {list(shapes[-1])}" if len(shapes) > 2 else "")
        )
    if not layer.read(f"{layer.name}.{end}").float().isfinite().all():
        raise layer.wrong(f"has a {end} that is not finite")


def _marker(layer: _Layer) -> Mapping[str, Any]:
    return _parse(layer.path, f"{layer.name}.torchao_nvfp4", _text(layer, "torchao_nvfp4"))


def _text(layer: _Layer, leaf: str) -> bytes:
    return bytes(layer.read(f"{layer.name}.{leaf}").flatten().view(torch.uint8).tolist())


def _parse(path: Path, where: str, text: str | bytes) -> dict[str, Any]:
    try:
        return parse_object(text.decode() if isinstance(text, bytes) else text)
    except ValueError as error:
        raise CheckpointError(f"{path}: {where} is not JSON: {error}") from None


def _said(
    path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], read: ReadTensor
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What a file says of its layers, by their names: `format`, `convrot` and so on."""
    for key, info in tensors.items():
        layer, _, leaf = f".{key}".rpartition(".")
        if leaf == LEGACY_MARK:
            yield from _legacy(path, layer.removeprefix("."), info, tensors)
    for layer, value in said_in_header(path, tensors, metadata):
        yield layer, _fields(path, layer, value)
    for key in tensors:
        layer, _, leaf = key.rpartition(".")
        if leaf == "comfy_quant":
            text = bytes(read(key).flatten().view(torch.uint8).tolist())
            yield layer, _fields(path, key, _parse(path, key, text))


def said_in_header(
    path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]
) -> Iterator[tuple[str, object]]:
    """What a header says of the file's layers, by their names as tensors have them."""
    if METADATA_MARK not in metadata:
        return
    layers = _parse(path, METADATA_MARK, metadata[METADATA_MARK]).get("layers")
    if not isinstance(layers, dict):
        raise CheckpointError(f"{path}: {METADATA_MARK} has no layers")
    for name, value in layers.items():
        found = _named(name, tensors)
        if found is not None:
            yield found, value


def _legacy(
    path: Path, prefix: str, mark: TensorInfo, tensors: Mapping[str, TensorInfo]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The layers of an older file: those with a `scale_weight`. The mark's dtype is theirs."""
    name = mark.kind if mark.kind in FLOAT8 else "float8_e4m3fn"
    for key in tensors:
        layer, _, leaf = key.rpartition(".")
        if leaf == "scale_weight" and key.startswith(prefix):
            if tensors[f"{layer}.weight"].kind not in (name, "uint8"):
                kind = tensors[f"{layer}.weight"].kind
                raise CheckpointError(
                    f"{path}: {layer}.weight is {kind}; {LEGACY_MARK} says {name}"
                )
            full_precision = mark.parameters == 2
            yield layer, {"format": name, "full_precision_matrix_mult": full_precision}


def _named(name: str, tensors: Mapping[str, TensorInfo]) -> str | None:
    """The layer that a name means, which may lack the prefix of its tensors or have one more.

    None where the file has no such layer: another one of the model's files may.
    """
    bare = name
    for prefix in ROOTS:
        bare = bare.removeprefix(prefix)
    for each in (name, bare, *(prefix + bare for prefix in ROOTS)):
        if f"{each}.weight" in tensors:
            return each
    return None


def _fields(path: Path, where: str, value: object) -> Mapping[str, Any]:
    """What is said of one layer: an object, with some fields under `params`; or a format alone."""
    if isinstance(value, str):
        return {"format": value}
    if not isinstance(value, dict) or not isinstance(value.get("format"), str):
        raise CheckpointError(f"{path}: {where} names no format")
    more = value.get("params")
    return {**value, **more} if isinstance(more, dict) else value
