"""Recognises files that cannot be read as a model's, by their first bytes or their tensors.

Covers what people download. A kind that gets a reader is removed here.
"""

from collections.abc import Mapping

TAKE_BFLOAT16 = "take the bfloat16 weights instead (of the model: ltx-2.3-22b-dev.safetensors)"

# First bytes, what they are the beginning of, and what would be right.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"GGUF", "a GGUF file", "give it as one of the files of `checkpoint_path`"),
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


# What the ends of tensors' names betray: formats that no reader knows. See `quantised` for others.
MARKS: Mapping[str, str] = {
    ".weight_global_scale": "nvfp4 of compressed-tensors",
    ".input_global_scale": "nvfp4 of compressed-tensors",
    ".weight_packed": "a packed format (compressed-tensors)",
    ".weight_scale_inv": "fp8 with a scale for every block (DeepSeek)",
    ".weight._data": "quanto",
    ".weight._scale": "quanto",
    ".quant_state.bitsandbytes__nf4": "nf4 (bitsandbytes)",
    ".quant_state.bitsandbytes__fp4": "fp4 (bitsandbytes)",
    ".weight.absmax": "4 bits (bitsandbytes)",
    ".SCB": "int8 (bitsandbytes)",
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
}
METADATA_MARK = "_quantization_metadata"

# Dtypes that torch cannot hold.
DTYPES: Mapping[str, str] = {
    "F4": "4-bit floats (F4)",
    "F6_E2M3": "6-bit floats (F6_E2M3)",
    "F6_E3M2": "6-bit floats (F6_E3M2)",
}


def recognise_quantised(dtypes: Mapping[str, str]) -> str | None:
    """The format of a file's weights, in words, if no reader knows it; None where none is betrayed.

    dtypes: of every tensor, by name, as the header has them.
    """
    for end, what in MARKS.items():
        if any(name.endswith(end) for name in dtypes):
            return what
    return next((what for dtype, what in DTYPES.items() if dtype in dtypes.values()), None)
