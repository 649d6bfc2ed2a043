"""Converted files are read back as what the engine would hold, bit for bit."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from entracte.checkpoints.convert import (
    BFLOAT16,
    WRITTEN,
    check_room,
    plan_conversion,
    write_conversion,
)
from entracte.checkpoints.convert.weights import NewFormats
from entracte.checkpoints.gemma_folder import open_gemma
from entracte.checkpoints.loading import build_component
from entracte.checkpoints.model_files import ModelPaths, open_model
from entracte.checkpoints.published import open_checkpoint
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import ComponentSource
from entracte.checkpoints.weights_file import open_weights
from entracte.cli import convert as command
from entracte.cli.main import run
from entracte.errors import CheckpointError, LoraError, WriteError
from entracte.models.formats import Float8, Format, Int8, Mxfp8, Nvfp4, ScaledFloat8
from entracte.models.formats.quantise import quantise
from entracte.models.registry import LTX_2_3
from entracte.residency.merge import Factors, merge
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA, GEMMA, UPSAMPLER

DATA = Path(__file__).parent.parent / "data"
QUANTISED = DATA / "quantised"
ORACLE = DATA / "oracle" / "checkpoint.safetensors"
LORA = DATA / "oracle" / "distilled-lora.safetensors"
PREFIX = "model.diffusion_model."
LAYER = f"{PREFIX}transformer_blocks.1.attn1.to_q"
E4M3 = torch.float8_e4m3fn


def held(paths: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of a checkpoint as the engine holds it, in bfloat16 but for the vocoder."""
    version, components = open_checkpoint([open_weights(path) for path in paths])
    for component in components.values():
        dtype = version.dtype_of(component.name, torch.bfloat16)
        for name, located in component.tensors.items():
            out = torch.empty(located.info.shape, dtype=dtype)
            located.read(out)
            yield f"{component.name}.{name}", out


def assert_same(found: Iterator[tuple[str, Tensor]], right: Iterator[tuple[str, Tensor]]) -> None:
    wanted = dict(right)
    count = 0
    for name, tensor in found:
        assert torch.equal(tensor, wanted[name]), name
        count += 1
    assert count == len(wanted) > 0


def raw(path: Path) -> dict[str, bytes]:
    return {
        key: tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        for key, tensor in load_file(path).items()
    }


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def converted(inputs: list[Path], out: Path, **options: object) -> list[Path]:
    return write_conversion(plan_conversion(inputs, out, **options))  # type: ignore[arg-type]


# What is quantised


@pytest.mark.parametrize(
    ("name", "of_rows"),
    [
        ("official-fp8", False),
        ("nvfp4-2.3-with-metadata", False),
        ("mxfp8", False),
        ("int8-convrot", True),
        ("comfy-fp8-plain", False),
    ],
)
def test_weights_are_quantised_as_the_published_files_are(name: str, of_rows: bool) -> None:
    """Numbers, scales and their layout, byte for byte."""
    original, file = load_file(ORACLE), SafetensorsFile(QUANTISED / f"{name}.safetensors")
    checked = 0
    for key, info in file.tensors.items():
        if info.format is None or (of_rows and info.parts["_scale"].shape == ()):
            continue
        assert isinstance(info.format, Float8 | ScaledFloat8 | Nvfp4 | Mxfp8 | Int8)
        made = quantise(info.format, original[PREFIX + key.removeprefix(PREFIX)])
        for end in made:
            part = info.parts[end]
            right = torch.empty(part.shape, dtype=part.dtype)
            file.read_stored(key, end, right)
            found = made[end].reshape(-1).view(torch.uint8)
            assert torch.equal(found, right.reshape(-1).view(torch.uint8)), (key, end)
        checked += 1
    assert checked > 20


@pytest.mark.parametrize("scheme", WRITTEN)
def test_zeros_and_large_numbers_are_quantised(scheme: str) -> None:
    from entracte.models.formats.schemes import SCHEMES

    form = SCHEMES[scheme]("attn1.to_q.weight")
    assert isinstance(form, Float8 | ScaledFloat8 | Nvfp4 | Mxfp8 | Int8)
    for weight in (torch.zeros(3, 256), torch.randn(3, 256) * 1e4):
        stored = {end: tensor.contiguous() for end, tensor in quantise(form, weight).items()}
        out = torch.empty_like(weight)
        form.expand(stored, out)
        assert out.isfinite().all()
        if not isinstance(form, Float8):  # which knows no numbers above 448
            assert (out - weight).abs().max() <= 0.2 * weight.abs().max()


def test_blocks_at_the_ends_stay_bfloat16_and_gates_are_quantised_in_fp8_alone() -> None:
    def formats(scheme: str, stored: Format | None = None) -> list[int]:
        formats = NewFormats(scheme, torch.bfloat16, "transformer_blocks", 48)
        name = "transformer_blocks.{}.attn1.to_gate_logits.weight"
        found = (formats.format_of(name.format(each), stored) for each in range(48))
        return [number for number, each in enumerate(found) if each is not None]

    assert formats("fp8") == list(range(2, 46))
    assert formats("nvfp4") == formats(BFLOAT16) == []
    # What is in the format already stays so.
    assert formats("fp8", ScaledFloat8(E4M3)) == list(range(48))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("scheme", ["fp8", "nvfp4", "mxfp8", "int8", "fp8-plain"])
def test_a_model_is_quantised(tmp_path: Path, scheme: str) -> None:
    [path] = converted([ORACLE], tmp_path / "new.safetensors", to=scheme)
    file, original = SafetensorsFile(path), load_file(ORACLE)
    count = 0
    for key, tensor in original.items():
        info, found = file.tensors[key], torch.empty(tensor.shape, dtype=torch.bfloat16)
        file.read(key, found)
        right = tensor.bfloat16()
        if info.format is not None:
            assert ".transformer_blocks." in key
            stored = quantise(info.format, tensor)  # type: ignore[arg-type]
            info.format.expand({end: each.contiguous() for end, each in stored.items()}, right)
            count += 1
        assert torch.equal(found, right), key
    assert count == 2 * (34 if scheme == "fp8" else 28)
    assert header(path)["model_version"] == header(ORACLE)["model_version"]
    _, components = open_checkpoint([file])
    for component in components.values():
        build_component(component, LTX_2_3)


# What is expanded


WHOLE = (
    "official-fp8.safetensors",
    "comfy-fp8-comfy_quant.safetensors",
    "int8-convrot.safetensors",
    "nvfp4-2.3-with-metadata.safetensors",
    "ltx-2.3-tiny-Q8_0-mixed.gguf",
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", WHOLE)
def test_every_format_is_expanded_to_what_the_engine_holds(tmp_path: Path, name: str) -> None:
    path = QUANTISED / name
    [new] = converted([path], tmp_path / "new.safetensors", to=BFLOAT16)
    assert_same(held([new]), held([path]))
    assert not any(info.format for info in open_weights(new).tensors.values())
    dtypes = {tensor.dtype for tensor in load_file(new).values()}
    assert dtypes == {torch.bfloat16}


def test_what_is_in_the_format_is_not_quantised_again(tmp_path: Path) -> None:
    path = QUANTISED / "official-fp8.safetensors"
    [new] = converted([path], tmp_path / "new.safetensors", to="fp8")
    before, after = raw(path), raw(new)
    quantised = [key for key in before if key.startswith(f"{PREFIX}transformer_blocks.1.")]
    assert sum(key.endswith("input_scale") for key in quantised) == 34
    assert {key: before[key] for key in quantised} == {key: after[key] for key in quantised}


def test_nvfp4_of_another_producer_is_laid_out_as_published(tmp_path: Path) -> None:
    form, columns = Nvfp4(high_first=False, blocked=False), 96
    right = quantise(Nvfp4(high_first=True, blocked=True), torch.randn(40, columns))
    out = torch.empty(40, columns)
    Nvfp4(high_first=True, blocked=True).expand(right, out)
    from entracte.models.formats.block_scaled import unblocked

    other = {
        "": right[""] << 4 | right[""] >> 4,
        "_scale": unblocked(right["_scale"], 40, columns // 16).contiguous(),
        "_scale_2": right["_scale_2"],
    }
    found = torch.empty(40, columns)
    form.expand(other, found)
    assert torch.equal(found, out)
    for end, tensor in form.as_published(other, 40).items():
        assert torch.equal(tensor.view(-1).view(torch.uint8), right[end].view(-1).view(torch.uint8))


# Split and joined


def test_a_model_is_split_and_joined(demo_model: Path, tmp_path: Path) -> None:
    [fp8] = converted([demo_model / CHECKPOINT], tmp_path / "fp8.safetensors", to="fp8")
    paths = converted([fp8], tmp_path / "split", split=True)
    assert sorted(path.name for path in (tmp_path / "split").iterdir()) == [
        "fp8_audio_vae.safetensors",
        "fp8_text_projection.safetensors",
        "fp8_transformer.safetensors",
        "fp8_video_vae.safetensors",
    ]
    assert {key for path in paths for key in raw(path)} == raw(fp8).keys()
    assert_same(held(paths), held([fp8]))
    [joined] = converted([tmp_path / "split"], tmp_path / "joined.safetensors")
    assert raw(joined) == raw(fp8)
    before, after = header(fp8), header(joined)
    for name in ("config", "_quantization_metadata"):
        assert json.loads(before.pop(name)) == json.loads(after.pop(name))
    assert before == after


def test_a_split_folder_is_a_model(demo_model: Path, tmp_path: Path) -> None:
    converted([demo_model / CHECKPOINT], tmp_path / "model", split=True)
    for each in (DISTILLED_LORA, UPSAMPLER, GEMMA):
        (tmp_path / "model" / each).symlink_to(demo_model / each)
    found = open_model(str(tmp_path / "model"), ModelPaths(), distilled=False)
    assert found.components.keys() >= {"transformer", "connectors", "video_vae", "vocoder"}


def test_files_without_prefixes_are_joined_with_them(tmp_path: Path) -> None:
    """A bare transformer in GGUF, expanded, beside the rest."""
    rest = {key: each for key, each in load_file(ORACLE).items() if not key.startswith("model.")}
    save_file(rest, tmp_path / "rest.safetensors", header(ORACLE))
    inputs = [QUANTISED / "ltx-2.3-tiny-Q8_0-mixed.gguf", tmp_path / "rest.safetensors"]
    [new] = converted(inputs, tmp_path / "new.safetensors", to=BFLOAT16)
    assert_same(held([new]), held(inputs))
    assert load_file(new).keys() >= {f"{LAYER}.weight", *rest}


def test_an_older_files_scales_get_their_present_names(tmp_path: Path) -> None:
    path = QUANTISED / "comfy-fp8-legacy.safetensors"
    tensors = load_file(path)
    assert tensors.pop(f"{PREFIX}transformer_blocks.1.attn1.to_k.scale_input", None) is not None
    tensors = {key: each for key, each in tensors.items() if not key.endswith("scale_input")}
    tensors[f"{LAYER}.scale_input"] = torch.tensor(0.5)
    tensors[f"{PREFIX}transformer_blocks.1.attn1.to_k.scale_input"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "old.safetensors")
    rest = {key: each for key, each in load_file(ORACLE).items() if not key.startswith("model.")}
    save_file(rest, tmp_path / "rest.safetensors", header(ORACLE))
    inputs = [tmp_path / "old.safetensors", tmp_path / "rest.safetensors"]
    [new] = converted(inputs, tmp_path / "new.safetensors")
    assert_same(held([new]), held(inputs))
    names = load_file(new).keys()
    assert not [name for name in names if "scale_weight" in name or "scaled_fp8" in name]
    # An input scale of 1 says that there is none.
    assert [name for name in names if "input_scale" in name] == [f"{LAYER}.input_scale"]
    layers = json.loads(header(new)["_quantization_metadata"])["layers"]
    assert layers[LAYER] == {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}


# LoRAs


@pytest.mark.sampled(1)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_lora_is_merged_as_the_official_code_merges_it(tmp_path: Path, strength: float) -> None:
    expected = load_file(QUANTISED / "expected.safetensors")
    aliases = json.loads((QUANTISED / "expected.json").read_text())["aliases"]
    path = QUANTISED / "official-fp8.safetensors"
    [new] = converted([path], tmp_path / "x.safetensors", to="bf16", loras=[(LORA, strength)])
    found, checked = load_file(new), 0
    for key, tensor in found.items():
        name = f"official_fp8.merged_bf16.{strength}.{key.removeprefix(PREFIX)}"
        right = expected.get(aliases.get(name, name))
        if right is not None:
            assert torch.equal(tensor, right), key
            checked += 1
    assert checked == 36


def test_several_loras_are_merged_in_order_and_then_quantised(tmp_path: Path) -> None:
    loras = [(LORA, 0.5), (DATA / "merges" / "style-lora.safetensors", -1.0)]
    [new] = converted([ORACLE], tmp_path / "x.safetensors", to="fp8", loras=loras)
    weight = load_file(ORACLE)[f"{LAYER}.weight"].bfloat16()
    changes = []
    for path, strength in loras:
        factors = load_file(path)
        layer = LAYER.removeprefix("model.")
        down, up = (factors[f"{layer}.lora_{each}.weight"] for each in "AB")
        changes.append((Factors(down, up), strength))
    right = quantise(ScaledFloat8(E4M3), merge(weight, changes))
    found = load_file(new)
    assert torch.equal(found[f"{LAYER}.weight"].view(torch.uint8), right[""].view(torch.uint8))
    assert torch.equal(found[f"{LAYER}.weight_scale"], right["_scale"])


def test_a_lora_on_bfloat16_needs_no_format(tmp_path: Path) -> None:
    [new] = converted([ORACLE], tmp_path / "x.safetensors", loras=[(LORA, 1.0)])
    before, after = raw(ORACLE), raw(new)
    changed = {key for key in before if before[key] != after[key]}
    assert 60 < len(changed) < 120
    assert all(key.startswith(PREFIX) for key in changed)


# The text encoder


def test_a_text_encoder_is_quantised(demo_model: Path, tmp_path: Path) -> None:
    def read(source: ComponentSource) -> dict[str, Tensor]:
        return {name: located.tensor().bfloat16() for name, located in before.tensors.items()}

    paths = converted([demo_model / GEMMA], tmp_path / "gemma", to="fp8")
    assert {path.name for path in paths} >= {"model.safetensors", "config.json", "tokenizer.json"}
    before, after = open_gemma(demo_model / GEMMA), open_gemma(tmp_path / "gemma")
    build_component(after, LTX_2_3)
    assert after.tensors.keys() == before.tensors.keys()
    for name, located in after.tensors.items():
        found = torch.empty(located.info.shape, dtype=torch.bfloat16)
        located.read(found)
        right = before.tensors[name].tensor().bfloat16()
        if located.info.format is not None:
            assert name.startswith("model.layers.")
            stored = quantise(ScaledFloat8(E4M3), right)
            ScaledFloat8(E4M3).expand(stored, right)
        assert torch.equal(found, right)
    assert sum(located.info.format is not None for located in after.tensors.values()) > 10


# What is refused, and what is left then


def with_change(tmp_path: Path, key: str, tensor: Tensor) -> Path:
    path = tmp_path / "changed.safetensors"
    save_file(load_file(ORACLE) | {key: tensor}, path, header(ORACLE))
    return path


def test_what_cannot_be_converted(demo_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    gguf, fp8 = QUANTISED / "ltx-2.3-tiny-Q8_0-mixed.gguf", QUANTISED / "official-fp8.safetensors"
    with pytest.raises(CheckpointError, match="would be copied as it is"):
        plan_conversion([ORACLE], out)
    with pytest.raises(CheckpointError, match=r"must end with \.safetensors"):
        plan_conversion([ORACLE], tmp_path / "out.gguf", to="fp8")
    with pytest.raises(CheckpointError, match="which only GGUF files hold"):
        plan_conversion([gguf], tmp_path / "out", split=True)
    with pytest.raises(CheckpointError, match="is quantised .* and a LoRA changes it"):
        plan_conversion([fp8], out, loras=[(LORA, 1.0)])
    with pytest.raises(CheckpointError, match="is not an LTX checkpoint|is a LoRA"):
        plan_conversion([LORA], out, to="fp8")
    with pytest.raises(CheckpointError, match="is in .* and in "):
        plan_conversion([ORACLE, fp8], out)
    with pytest.raises(CheckpointError, match="has 64 inputs, which int8 with ConvRot of 256"):
        plan_conversion([ORACLE], out, to="int8-convrot")
    with pytest.raises(CheckpointError, match="is converted alone"):
        plan_conversion([demo_model / GEMMA, ORACLE], out, to="fp8")
    with pytest.raises(LoraError, match="cannot be applied"):
        wrong = tmp_path / "lora.safetensors"
        save_file({"x.lora_A.weight": torch.ones(1, 1), "x.lora_B.weight": torch.ones(1, 1)}, wrong)
        plan_conversion([ORACLE], out, to="fp8", loras=[(wrong, 1.0)])
    assert [path.name for path in tmp_path.iterdir()] == ["lora.safetensors"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    conversion = plan_conversion([ORACLE], out, to="fp8")
    out.write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        write_conversion(conversion)

    def meanwhile(nbytes: int) -> None:
        if not out.exists():
            out.write_text("made meanwhile")

    out.unlink()
    with pytest.raises(WriteError, match="made meanwhile"):
        write_conversion(conversion, meanwhile)
    assert out.read_text() == "made meanwhile"
    assert list(tmp_path.iterdir()) == [out]


def test_room_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    conversion = plan_conversion([ORACLE], tmp_path / "out.safetensors", to="fp8")
    with pytest.raises(WriteError, match="and its disk has 1.0 kB left"):
        check_room(conversion)
    with pytest.raises(WriteError, match="does not exist"):
        check_room(plan_conversion([ORACLE], tmp_path / "no" / "out.safetensors", to="fp8"))


@pytest.mark.parametrize("split", [False, True])
def test_nothing_is_left_of_what_fails(tmp_path: Path, split: bool) -> None:
    bad = torch.full((64, 64), torch.nan, dtype=torch.bfloat16)
    path = with_change(tmp_path, f"{LAYER}.weight", bad)
    out = tmp_path / ("out" if split else "out.safetensors")
    with pytest.raises(CheckpointError, match=r"to_q\.weight has numbers that are not finite"):
        converted([path], out, to="fp8", split=split)

    def stop(nbytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_conversion(plan_conversion([ORACLE], out, to="fp8", split=split), stop)
    assert list(tmp_path.iterdir()) == [path]


# The command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (BFLOAT16, *WRITTEN) == command.FORMATS
    out = tmp_path / "out.safetensors"
    words = ["convert", str(ORACLE), str(out), "--to", "fp8", "--lora", str(LORA), "0.5", "--json"]
    assert run([*words, "--dry-run"]) == 0
    [told] = json.loads(capsys.readouterr().out)["files"]
    assert not out.exists()
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [told]
    assert told["formats"] == ["float8_e4m3fn with scales"]
    assert 0 < out.stat().st_size - told["bytes"] < 400_000
    assert run(words) == 2
    assert "exists already" in capsys.readouterr().out
    assert run(["convert", str(ORACLE), str(out), "--lora", str(LORA), "1", "2"]) == 2
