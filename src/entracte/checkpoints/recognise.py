"""Recognises files that cannot be read as a model's, by their first bytes or their tensors.

Covers what people download. A kind that gets a reader is removed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

TAKE_BFLOAT16 = "take the bfloat16 weights instead (of the model: ltx-2.3-22b-dev.safetensors)"

# First bytes, what they are the beginning of, and what would be right.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"GGUF", "a GGUF file, which is not supported", TAKE_BFLOAT16),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file that it stands for",
        "fetch the file with `git lfs pull` or `hf download`",
    ),
    (
        b"PK\x03\x04",
        "a zip archive, perhaps a PyTorch pickle (.pt, .ckpt), which is not supported",
        "take the safetensors file",
    ),
    (b"\x80\x02", "a Python pickle, which is not supported", "take the safetensors file"),
    (b"\x80\x03", "a Python pickle, which is not supported", "take the safetensors file"),
    (b"\x80\x04", "a Python pickle, which is not supported", "take the safetensors file"),
    (b"\x80\x05", "a Python pickle, which is not supported", "take the safetensors file"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"BZh", "a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x89HDF", "an HDF5 file, which is not supported", "take the safetensors file"),
    (b"\x93NUMPY", "a NumPy file, which is not supported", "take the safetensors file"),
    (b"\x00\x05\x16\x07", "metadata of macOS (AppleDouble)", "take the file beside it"),
)
PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<body")
TAR = (257, b"ustar")
LOOKED_AT = 512


def recognise_bytes(start: bytes) -> str | None:
    """What a file is by its first `LOOKED_AT` bytes, and what to do about it; None: not known."""
    for beginning, what, advice in BEGINNINGS:
        if start.startswith(beginning):
            return f"it is {what}; {advice}"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        return (
            "it is a web page, not a model; download the file itself, logged in where it needs it"
        )
    if start[TAR[0] :].startswith(TAR[1]):
        return "it is a tar archive; unpack it"
    if start and not start.strip(b"\0"):
        return "it is full of zeros, as an interrupted download leaves it; download it again"
    return None


@dataclass(frozen=True, slots=True)
class QuantisedMark:
    """What betrays a quantised file: the end of a tensor's name, and its dtype where that matters.

    beside: the dtype of the weight beside it, where that matters.
    """

    suffix: str
    what: str
    dtype: str | None = None
    beside: str | None = None


# The first mark that any tensor bears decides; so those of one kind alone come first.
MARKS: tuple[QuantisedMark, ...] = (
    QuantisedMark(".weight_scale_2", "nvfp4 (ModelOpt, Comfy)"),
    QuantisedMark(".torchao_nvfp4", "nvfp4 (torchao)"),
    QuantisedMark(".weight_global_scale", "nvfp4"),
    QuantisedMark(".input_global_scale", "nvfp4"),
    QuantisedMark(".weight_packed", "a packed format (compressed-tensors)"),
    QuantisedMark(".weight_scale", "mxfp8", dtype="F8_E8M0"),
    QuantisedMark(".weight_scale", "mxfp8", dtype="U8", beside="F8_E4M3"),
    QuantisedMark(".weight_scale", "int8 with scales", beside="I8"),
    QuantisedMark(".weight_scale", "a packed format with scales", beside="U8"),
    QuantisedMark("scaled_fp8", "Comfy's scaled fp8"),
    QuantisedMark(".scale_weight", "Comfy's scaled fp8"),
    QuantisedMark(".scale_input", "Comfy's scaled fp8"),
    QuantisedMark(".weight_scale", "scaled fp8"),
    QuantisedMark(".weight_scale_inv", "scaled fp8"),
    QuantisedMark(".input_scale", "scaled fp8"),
    QuantisedMark(".comfy_quant", "Comfy's mixed precision"),
    QuantisedMark(".weight._data", "quanto"),
    QuantisedMark(".weight._scale", "quanto"),
    QuantisedMark(".quant_state.bitsandbytes__nf4", "nf4 (bitsandbytes)"),
    QuantisedMark(".quant_state.bitsandbytes__fp4", "fp4 (bitsandbytes)"),
    QuantisedMark(".weight.absmax", "4 bits (bitsandbytes)"),
    QuantisedMark(".SCB", "int8 (bitsandbytes)"),
    QuantisedMark(".qweight", "GPTQ or AWQ"),
    QuantisedMark(".qzeros", "GPTQ or AWQ"),
)
METADATA_MARK = "_quantization_metadata"

# Dtypes that are only found in quantised files, and that torch cannot hold as weights.
DTYPES: Mapping[str, str] = {
    "F4": "4-bit floats (F4)",
    "F6_E2M3": "6-bit floats (F6_E2M3)",
    "F6_E3M2": "6-bit floats (F6_E3M2)",
    "F8_E8M0": "mxfp8 (scales in F8_E8M0)",
}


def recognise_quantised(dtypes: Mapping[str, str], metadata: Mapping[str, str]) -> str | None:
    """How a file's weights are quantised, in words; None where nothing says that they are.

    dtypes: of every tensor, by name, as the header has them.
    """
    for mark in MARKS:
        for name, dtype in dtypes.items():
            if not name.endswith(mark.suffix) or mark.dtype not in (None, dtype):
                continue
            weight = dtypes.get(name.removesuffix(mark.suffix) + ".weight")
            if mark.beside in (None, weight):
                return mark.what
    for dtype, what in DTYPES.items():
        if dtype in dtypes.values():
            return what
    return "a quantised format" if METADATA_MARK in metadata else None
