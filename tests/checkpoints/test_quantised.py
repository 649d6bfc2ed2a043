"""Quantised files: their expansion bit for bit, and what is refused by name."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from entracte.checkpoints.description import describe_path
from entracte.checkpoints.gemma_folder import open_gemma
from entracte.checkpoints.loading import FileSource, build_component
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.weights_file import open_weights
from entracte.errors import CheckpointError
from entracte.models.formats import Ggml, StoredLinear
from entracte.models.formats.ggml import TYPES
from entracte.models.gemma import file_to_module
from entracte.models.registry import LTX_2_3
from entracte.models.transformer.linear import Linear
from entracte.residency.merge import Factors, merge
from entracte.synthetic.demo import CHECKPOINT, GEMMA

DATA = Path(__file__).parent.parent / "data"
QUANTISED = DATA / "quantised"
PREFIX = "model.diffusion_model."

# What is expected of each file's quantised weights, and how many there are.
FILES = {
    "official-fp8.safetensors": ("official_fp8.float32", 34),
    "comfy-fp8-comfy_quant.safetensors": ("comfy_fp8.float32", 28),
    "comfy-fp8-metadata.safetensors": ("comfy_fp8.float32", 28),
    "comfy-fp8-legacy.safetensors": ("comfy_fp8.float32", 28),
    "comfy-fp8-plain.safetensors": ("comfy_fp8_plain.bfloat16", 28),
    "nvfp4-2.3-with-metadata.safetensors": ("nvfp4.float32", 28),
    "nvfp4-2.5-style-no-metadata.safetensors": ("nvfp4.float32", 28),
    "nvfp4-torchao-low-nibble.safetensors": ("nvfp4.float32", 4),
    "mxfp8.safetensors": ("mxfp8.float32", 28),
    "int8-convrot.safetensors": ("int8.float32", 28),
    "ltx-2.3-tiny-Q8_0-mixed.gguf": ("gguf.float32", 15),
    "all-types.gguf": ("all_types.float32", 21),
}


@cache
def expected() -> tuple[dict[str, Tensor], dict[str, str]]:
    aliases = json.loads((QUANTISED / "expected.json").read_text())["aliases"]
    return load_file(QUANTISED / "expected.safetensors"), aliases


def wanted(kind: str, key: str) -> Tensor:
    tensors, aliases = expected()
    name = f"{kind}.{key.removeprefix(PREFIX)}"
    return tensors[aliases.get(name, name)]


@pytest.mark.parametrize("name", FILES)
def test_every_weight_is_expanded_bit_for_bit(name: str) -> None:
    file, (kind, count) = open_weights(QUANTISED / name), FILES[name]
    found = [key for key, info in file.tensors.items() if info.format is not None]
    assert len(found) == count
    for key in found:
        right = wanted(kind, key)
        for dtype in (torch.float32, torch.bfloat16):
            out = torch.empty(right.shape, dtype=dtype)
            file.read(key, out)
            assert torch.equal(out, right.to(dtype)), key


def test_other_tensors_of_a_gguf_file_are_read_as_they_are() -> None:
    file = open_weights(QUANTISED / "all-types.gguf")
    for key, info in file.tensors.items():
        if info.format is None:
            out = torch.empty(info.shape)
            file.read(key, out)
            assert torch.equal(out, wanted("all_types.float32", key))


@pytest.mark.parametrize("name", [name for name, (_, count) in FILES.items() if count == 34])
def test_a_lora_on_what_is_stored_is_as_official(name: str) -> None:
    """W' = bf16(bf16((B * s) @ A) + W), with W expanded and rounded."""
    file = open_weights(QUANTISED / name)
    with safe_open(DATA / "oracle" / "distilled-lora.safetensors", "pt") as lora:
        factors = {key: lora.get_tensor(key) for key in lora.keys()}  # noqa: SIM118
    checked = 0
    for strength in ("0.5", "1.0"):
        for key, info in file.tensors.items():
            layer = key.removeprefix(PREFIX).removesuffix(".weight")
            down = factors.get(f"diffusion_model.{layer}.lora_A.weight")
            if info.format is None or down is None:
                continue
            up = factors[f"diffusion_model.{layer}.lora_B.weight"]
            weight = torch.empty(info.shape, dtype=torch.bfloat16)
            file.read(key, weight)
            merged = merge(weight, [(Factors(down, up), float(strength))])
            assert torch.equal(merged, wanted(f"official_fp8.merged_bf16.{strength}", key))
            checked += 1
    assert checked == 2 * 34


def test_a_checkpoint_is_no_adapter_for_its_vocoders_alphas(tmp_path: Path) -> None:
    tensors = load_file(QUANTISED / "comfy-fp8-plain.safetensors")
    alphas = {"vocoder.resblocks.0.acts1.0.act.alpha": torch.ones(4)}
    save_file(tensors | alphas, tmp_path / "whole.safetensors")
    infos = open_weights(tmp_path / "whole.safetensors").tensors.values()
    assert sum(info.format is not None for info in infos) == 28


class TestBesideBlocks:
    """What a component's source makes of a file."""

    @pytest.fixture
    def source(self) -> FileSource:
        file = open_weights(QUANTISED / "official-fp8.safetensors")
        _, components = open_checkpoint([file])
        return FileSource(components["transformer"], LTX_2_3, torch.bfloat16)

    def test_weights_in_blocks_stay_as_they_are(self, source: FileSource) -> None:
        assert len(source.stored) == 34
        assert all(name.startswith("transformer_blocks.1.") for name in source.stored)
        name = "transformer_blocks.1.attn1.to_q.weight"
        parts = source.specs[name].parts
        assert {end: (part.dtype, part.shape) for end, part in parts.items()} == {
            "": (torch.float8_e4m3fn, (64, 64)),
            "_scale": (torch.float32, ()),
            "_input_scale": (torch.float32, ()),
        }
        stored = {end: torch.empty(part.shape, dtype=part.dtype) for end, part in parts.items()}
        for end, out in stored.items():
            source.read(name + end, out)
        found = torch.empty(64, 64)
        source.stored[name].format.expand(stored, found)
        assert torch.equal(found, wanted("official_fp8.float32", name))

    def test_types_that_are_expanded_on_the_host_are_read_expanded(self) -> None:
        assert Ggml("Q4_K").on_device
        assert not Ggml("IQ2_S").on_device


@pytest.mark.parametrize("name", TYPES)
def test_blocks_are_those_of_the_package(name: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    assert (TYPES[name].size, TYPES[name].nbytes) == (size, nbytes)


def test_a_linear_computes_from_what_is_stored() -> None:
    file = open_weights(QUANTISED / "int8-convrot.safetensors")
    key = f"{PREFIX}transformer_blocks.1.ff.net.2.weight"
    info = file.tensors[key]
    stored = {end: torch.empty(part.shape, dtype=part.dtype) for end, part in info.parts.items()}
    for end, out in stored.items():
        file.read_stored(key, end, out)
    plain = Linear(256, 64, dtype=torch.bfloat16)
    linear = StoredLinear(plain, info.format, stored)
    linear.bias = plain.bias
    plain.weight.data = wanted("int8.float32", key).bfloat16()
    x = torch.randn(5, 256, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(linear(x), plain(x))


def test_formats_are_shown(tmp_path: Path) -> None:
    [found] = describe_path(QUANTISED / "nvfp4-2.3-with-metadata.safetensors")
    kinds = {part.name: part.dtypes for part in found.parts}
    assert kinds["transformer"] == ["bfloat16", "nvfp4"]
    [found] = describe_path(QUANTISED / "ltx-2.3-tiny-Q8_0-mixed.gguf")
    kinds = {part.name: part.dtypes for part in found.parts}
    assert kinds["transformer"] == ["bfloat16", "float16", "float32", "q4_k", "q5_0", "q8_0"]


# Without a config


@pytest.mark.parametrize("name", ["official-fp8", "nvfp4-2.3-with-metadata", "int8-convrot"])
def test_a_transformer_without_a_config_is_told_by_its_shapes(tmp_path: Path, name: str) -> None:
    with safe_open(QUANTISED / f"{name}.safetensors", "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if k == "_quantization_metadata"}
        tensors = {key.removeprefix(PREFIX): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    _, right = open_checkpoint([open_weights(QUANTISED / f"{name}.safetensors")])
    _, found = open_checkpoint([open_weights(tmp_path / "x.safetensors")])
    given, inferred = right["transformer"].config, found["transformer"].config
    sizes = [
        key for key in given if key.endswith(("heads", "head_dim", "channels", "layers", "_dim"))
    ]
    assert len(sizes) > 10
    assert {key: inferred[key] for key in sizes} == {key: given[key] for key in sizes}
    assert found["transformer"].tensors.keys() == right["transformer"].tensors.keys()


# Split files


def test_files_of_one_component_may_lack_its_prefix(demo_model: Path, tmp_path: Path) -> None:
    """As they are split for other programs; all but the transformer's config is in one of them."""
    prefixes = {
        "transformer": PREFIX,
        "video_vae": "vae.",
        "audio_vae": "audio_vae.",
        "vocoder": "vocoder.",
        "projection": "text_embedding_projection.",
    }
    whole = SafetensorsFile(demo_model / CHECKPOINT)
    with safe_open(demo_model / CHECKPOINT, "pt") as file:
        metadata = file.metadata()
        split: dict[str, dict[str, Tensor]] = {name: {} for name in prefixes}
        for key in file.keys():  # noqa: SIM118
            name = next(each for each, prefix in prefixes.items() if key.startswith(prefix))
            split[name][key.removeprefix(prefixes[name])] = file.get_tensor(key)
    files = []
    for name, tensors in split.items():
        files.append(tmp_path / f"{name}.safetensors")
        save_file(tensors, files[-1], metadata if name == "video_vae" else None)
    _, right = open_checkpoint([whole])
    _, found = open_checkpoint([open_weights(file) for file in files])
    assert {name: each.tensors.keys() for name, each in found.items()} == {
        name: each.tensors.keys() for name, each in right.items()
    }
    with pytest.raises(CheckpointError, match="is in .* and in "):
        open_checkpoint([whole, open_weights(files[0])])


def test_a_text_encoder_in_one_quantised_file(demo_model: Path, tmp_path: Path) -> None:
    """Of any name, without the prefix of the language half, beside config and tokenizer."""
    for each in (demo_model / GEMMA).iterdir():
        if each.suffix == ".json":
            (tmp_path / each.name).symlink_to(each)
    tensors = {}
    for key, tensor in load_file(demo_model / GEMMA / "model.safetensors").items():
        name = file_to_module(key)
        if name is None:
            continue
        tensors[name] = tensor
        if ".layers." in name and tensor.ndim == 2:
            tensors[name] = tensor.to(E4M3)
            tensors[f"{name}_scale"] = torch.tensor(1.5)
    save_file(tensors, tmp_path / "gemma_3_fp8_scaled.safetensors")
    source = open_gemma(tmp_path)
    files = FileSource(source, LTX_2_3, torch.bfloat16)
    assert files.stored
    build_component(source, LTX_2_3)
    name = min(files.stored)
    found = torch.empty(files.specs[name].shape, dtype=torch.bfloat16)
    source.tensors[name].read(found)
    assert torch.equal(found, (tensors[name].float() * 1.5).bfloat16())


# What is refused

LAYER = "transformer_blocks.0.attn1.to_q"
E4M3 = torch.float8_e4m3fn

Given = Mapping[str, Tensor]


def saved(folder: Path, tensors: Given, metadata: Mapping[str, str] | None = None) -> Path:
    path = folder / "x.safetensors"
    save_file({f"{LAYER}.{leaf}": tensor for leaf, tensor in tensors.items()}, path, metadata)
    return path


def fp8(**beside: Tensor) -> Given:
    return {"weight": torch.zeros(8, 64).to(E4M3), **beside}


def nvfp4(**changes: Tensor) -> Given:
    scales = {"weight_scale": torch.ones(128, 4).to(E4M3), "weight_scale_2": torch.tensor(1.0)}
    return {"weight": torch.zeros(8, 32, dtype=torch.uint8), **scales, **changes}


def said(words: object) -> Tensor:
    return torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)


ONE = torch.tensor(1.0)
WRONG: list[tuple[str, Given, str]] = [
    ("no scale", fp8(comfy_quant=said({"format": "float8_e4m3fn"})), "has no weight_scale"),
    ("only of inputs", fp8(input_scale=ONE), "a scale of its inputs and none of its own"),
    ("shape", fp8(weight_scale=torch.ones(3)), r"weight_scale of \[3\] in float32"),
    ("NaN", fp8(weight_scale=torch.tensor(float("nan"))), "weight_scale that is not finite"),
    (
        "infinite",
        fp8(scale_weight=torch.full((8, 1), torch.inf)),
        "scale_weight that is not finite",
    ),
    ("integer", fp8(weight_scale=torch.ones(8, dtype=torch.int32)), r"\[8\] in int32"),
    ("unknown", fp8(comfy_quant=said({"format": "awq_w4a16"}), weight_scale=ONE), "awq_w4a16"),
    ("other", fp8(comfy_quant=said("x"), weight_scale=ONE), "is not an object"),
    ("no format", fp8(comfy_quant=said({}), weight_scale=ONE), "names no format"),
    ("no JSON", fp8(comfy_quant=torch.zeros(2, dtype=torch.uint8)), "is not JSON"),
    (
        "another",
        fp8(comfy_quant=said({"format": "float8_e5m2"}), weight_scale=ONE),
        "is float8_e4m3fn, and the file says float8_e5m2",
    ),
    ("wide", {"weight": torch.zeros(8, 64), "weight_scale": ONE}, "a scale that it does not need"),
    ("packed", {"weight": torch.zeros(8, 8, dtype=torch.uint8), "weight_scale": ONE}, "packed as"),
    ("alone", {"weight_scale": ONE}, "weight_scale has no .*weight beside it"),
    ("vector", {"weight": torch.zeros(8).to(E4M3), "weight_scale": ONE}, "only matrices"),
    ("AWQ", nvfp4(pre_quant_scale=torch.ones(64)), "pre_quant_scale"),
    ("nvfp4 scales", nvfp4(weight_scale=torch.ones(8, 3).to(E4M3)), r"weight_scale of \[8, 3\]"),
    ("nvfp4 dtype", nvfp4(weight_scale=torch.ones(128, 4)), "a scale in float32"),
    ("nvfp4 width", nvfp4(weight=torch.zeros(8, 12, dtype=torch.uint8)), "24 inputs, not a multi"),
    ("nvfp4 NaN", nvfp4(weight_scale_2=torch.tensor(torch.nan)), "weight_scale_2 that is not fin"),
    (
        "mxfp8 scales",
        fp8(weight_scale=torch.ones(8, 2, dtype=torch.uint8)),
        r"weight_scale of \[8, 2\] in uint8; mxfp8 has \[128, 4\]",
    ),
    (
        "mxfp8 width",
        {
            "weight": torch.zeros(8, 48).to(E4M3),
            "weight_scale": torch.ones(1, 1, dtype=torch.uint8),
        },
        "48 inputs, not a multiple of mxfp8's 32",
    ),
    (
        "rotation",
        {
            "weight": torch.zeros(8, 64, dtype=torch.int8),
            "weight_scale": ONE,
            "comfy_quant": said({"format": "int8_tensorwise", "convrot": True}),
        },
        "64 inputs, not a multiple of its groups of 256",
    ),
    (
        "no rotation",
        {
            "weight": torch.zeros(8, 64, dtype=torch.int8),
            "weight_scale": ONE,
            "comfy_quant": said(
                {"format": "int8_tensorwise", "params": {"convrot": True, "convrot_groupsize": 32}}
            ),
        },
        "groups of 32, which is no power of 4",
    ),
]


@pytest.mark.parametrize(
    ("tensors", "words"), [it[1:] for it in WRONG], ids=[it[0] for it in WRONG]
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, tensors: Given, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        SafetensorsFile(saved(tmp_path, tensors))


def test_a_file_with_scales_for_some_weights_only(tmp_path: Path) -> None:
    tensors = {f"a.{leaf}": tensor for leaf, tensor in fp8(weight_scale=ONE).items()}
    save_file({**tensors, "b.weight": torch.zeros(8, 64).to(E4M3)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.weight is float8_e4m3fn without a weight_scale"):
        SafetensorsFile(tmp_path / "x.safetensors")


@pytest.mark.parametrize("text", ["{", "{}", '{"layers": []}', '{"layers": {"LAYER": {}}}'])
def test_metadata_that_says_nothing(tmp_path: Path, text: str) -> None:
    metadata = {"_quantization_metadata": text.replace("LAYER", LAYER)}
    with pytest.raises(CheckpointError, match="is not JSON|has no layers|names no format"):
        SafetensorsFile(saved(tmp_path, fp8(weight_scale=ONE), metadata))


def test_the_older_mark_says_another_type(tmp_path: Path) -> None:
    tensors = {f"a.{leaf}": tensor for leaf, tensor in fp8(scale_weight=ONE).items()}
    mark = torch.zeros(2).to(torch.float8_e5m2)
    save_file({**tensors, "scaled_fp8": mark}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is float8_e4m3fn; scaled_fp8 says float8_e5m2"):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_scales_that_need_no_padding_are_blocked_unless_others_show(tmp_path: Path) -> None:
    """ModelOpt's are [out, in / 16], which only a weight shows whose blocked ones are larger."""

    def layer(name: str, rows: int, scale: tuple[int, int]) -> Given:
        given = nvfp4(
            weight=torch.zeros(rows, 32, dtype=torch.uint8), weight_scale=torch.ones(scale).to(E4M3)
        )
        return {f"{name}.{leaf}": tensor for leaf, tensor in given.items()}

    path = tmp_path / "x.safetensors"
    save_file(layer("a", 128, (128, 4)), path)
    form = SafetensorsFile(path).tensors["a.weight"].format
    assert form is not None
    assert (form.high_first, form.blocked) == (True, True)
    save_file({**layer("a", 128, (128, 4)), **layer("b", 8, (8, 4))}, path)
    form = SafetensorsFile(path).tensors["a.weight"].format
    assert (form.high_first, form.blocked) == (False, False)


# GGUF

Change = Callable[[bytearray], object]


def put(place: int, new: bytes) -> Change:
    def change(data: bytearray) -> None:
        data[place : place + len(new)] = new

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(4, b"\x01"), "of version 1; versions 2 and 3"),
        (put(4, b"\x00\x00\x00\x03"), "of version"),
        (put(8, b"\xff\xff\xff\xff"), "truncated or damaged"),
        (put(16, b"\xff\xff\xff\xff\xff\xff\xff\xff"), "truncated or damaged"),
        (lambda data: data.__delitem__(slice(-40, None)), "truncated"),
        (lambda data: data.__delitem__(slice(100, None)), "truncated or damaged"),
        (lambda data: data.__delitem__(slice(6, None)), "truncated"),
        (lambda data: put(data.index(b"ltxv"), b"flux")(data), "of the architecture flux"),
        (lambda data: put(data.index(b'{"tran'), b"}")(data), "its config is not JSON"),
    ],
)
def test_a_gguf_file_that_is_damaged(tmp_path: Path, change: Change, words: str) -> None:
    data = bytearray((QUANTISED / "all-types.gguf").read_bytes())
    change(data)
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words):
        open_weights(path)


def test_rows_that_no_number_of_blocks_fills(tmp_path: Path) -> None:
    """Q4_K has blocks of 256 numbers."""
    data = bytearray((QUANTISED / "all-types.gguf").read_bytes())
    name = b"transformer_blocks.10.attn1.to_q.weight"
    place = data.index(name) + len(name) + 4
    data[place : place + 8] = (384).to_bytes(8, "little")
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(CheckpointError, match="multiple"):
        open_weights(tmp_path / "x.gguf")


def test_a_gguf_file_is_found_in_a_folder(demo_model: Path, tmp_path: Path) -> None:
    """Beside the VAEs of another file."""
    for each in demo_model.iterdir():
        (tmp_path / each.name).symlink_to(each)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(3))
    source = open_model(str(tmp_path), ModelPaths(), distilled=False)
    assert any("broken.gguf" in note for note in source.notes)
