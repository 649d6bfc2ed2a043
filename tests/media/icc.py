"""ICC profiles, made by the letter of ICC.1:2022 for want of files."""

import struct

# Display P3's red, green and blue, adapted to D50.
P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
# sRGB's curve: gamma, then a, b, c and d of the part near black.
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
D50 = (0.9642, 1.0, 0.8249)


def _fixed(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _curve(parameters: tuple[float, ...]) -> bytes:
    kind = {1: 0, 5: 3}[len(parameters)]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(parameters)


def _text(words: str) -> bytes:
    data = words.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text("A test"), b"cprt": _text("None"), b"wtpt": _xyz(D50)} | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s24xI12s48x",
        128 + len(table) + len(body), b"\0\0\0\0", 0x04400000, b"mntr", space, b"XYZ ",
        b"acsp", 0, _fixed(D50),
    )  # fmt: skip
    return header + table + body


def rgb(
    colours: tuple[tuple[float, ...], ...] = P3, curve: tuple[float, ...] = SRGB_CURVE
) -> bytes:
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve))
    return _profile(b"RGB ", dict(zip(names, map(_xyz, colours), strict=True)) | curves)


def grey(gamma: float) -> bytes:
    return _profile(b"GRAY", {b"kTRC": _curve((gamma,))})
