"""Text encoders in GGUF and in the mixed formats that are published, made on the spot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import load_file, save_file
from torch import Tensor

from entracte.checkpoints.gemma_folder import open_gemma
from entracte.checkpoints.gemma_gguf import IN_BLOCKS, NAMES
from entracte.checkpoints.loading import build_component, stored_weights
from entracte.checkpoints.sources import ComponentSource
from entracte.errors import CheckpointError
from entracte.models.formats import Nvfp4, ScaledFloat8
from entracte.models.formats.quantise import quantise
from entracte.models.gemma import file_to_module
from entracte.models.registry import LTX_2_3

GEMMA = Path(__file__).parent.parent / "data" / "oracle" / "gemma"
Q8_0 = GGMLQuantizationType.Q8_0


def original() -> dict[str, Tensor]:
    """The language half, by our names."""
    found = {}
    for path in sorted(GEMMA.glob("*.safetensors")):
        for key, tensor in load_file(path).items():
            name = file_to_module(key)
            if name is not None:
                found[name] = tensor.bfloat16()
    return found


def llama_name(name: str) -> str:
    outside = {ours: theirs for theirs, ours in NAMES.items()}
    if name in outside:
        return outside[name]
    number, _, module = name.removeprefix("model.layers.").partition(".")
    theirs = {ours: theirs for theirs, ours in IN_BLOCKS.items()}
    return f"blk.{number}.{theirs[module.removesuffix('.weight')]}.weight"


def folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    for each in GEMMA.glob("*.json"):
        (path / each.name).symlink_to(each)
    return path


def write_gguf(path: Path, tensors: dict[str, Tensor], architecture: str = "gemma3") -> None:
    """As llama.cpp's converter does: 1 added to the factors of norms, linears in Q8_0."""
    writer = GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        numbers = tensor.float().numpy()
        if name.endswith("norm.weight"):
            writer.add_tensor(llama_name(name), numbers + np.float32(1))
        elif numbers.ndim == 2:
            writer.add_tensor(llama_name(name), quantize(numbers, Q8_0), raw_dtype=Q8_0)
        else:
            writer.add_tensor(name, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(source: ComponentSource, name: str) -> Tensor:
    out = torch.empty(source.tensors[name].info.shape, dtype=torch.bfloat16)
    source.tensors[name].read(out)
    return out


def test_a_gguf_file_is_a_text_encoder(tmp_path: Path) -> None:
    tensors = original()
    write_gguf(folder(tmp_path) / "gemma-Q8_0.gguf", tensors)
    source = open_gemma(tmp_path)
    build_component(source, LTX_2_3)
    assert source.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        right = tensor
        if not name.endswith("norm.weight"):
            right = torch.from_numpy(dequantize(quantize(tensor.float().numpy(), Q8_0), Q8_0))
        assert torch.equal(read(source, name), right.bfloat16()), name
    stored = stored_weights(source, LTX_2_3)
    assert len(stored) == 3 * 7
    name = min(stored)
    located = source.tensors[name]
    out = torch.empty(stored[name].tensors[""].shape, dtype=torch.uint8)
    located.file.read_stored(located.key, "", out)
    assert torch.equal(out, torch.from_numpy(quantize(tensors[name].float().numpy(), Q8_0)))


def test_a_vocabulary_without_its_padding(tmp_path: Path) -> None:
    """llama.cpp leaves out the rows that are no token's."""
    tensors = original()
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:292]
    write_gguf(folder(tmp_path) / "gemma.gguf", tensors)
    source = open_gemma(tmp_path)
    assert source.config["text_config"]["vocab_size"] == 292
    build_component(source, LTX_2_3)


def test_what_is_no_text_encoder_in_gguf(tmp_path: Path) -> None:
    tensors = original()
    write_gguf(folder(tmp_path) / "gemma.gguf", tensors, "ltxv")
    with pytest.raises(CheckpointError, match="architecture ltxv; that of the text encoder is gem"):
        open_gemma(tmp_path)
    write_gguf(tmp_path / "gemma.gguf", {**tensors, "blk.0.ssm.bias": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"blk\.0\.ssm\.bias, which Gemma 3 does not have"):
        open_gemma(tmp_path)
    write_gguf(tmp_path / "other.gguf", tensors)
    with pytest.raises(CheckpointError, match=r"several GGUF files \(gemma\.gguf, other\.gguf\)"):
        open_gemma(tmp_path)
    (tmp_path / "other.gguf").unlink()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    write_gguf(tmp_path / "gemma.gguf", tensors)
    with pytest.raises(CheckpointError, match=r"the first model\.layers\.1\.mlp\.up_proj\.weight"):
        build_component(open_gemma(tmp_path), LTX_2_3)


def test_the_mixed_file_of_most_workflows(tmp_path: Path) -> None:
    """nvfp4, with some layers in fp8 and some in bfloat16, and the tokenizer among the tensors."""
    formats = {
        "mlp": Nvfp4(high_first=True, blocked=True),
        "self_attn.o_proj": ScaledFloat8(torch.float8_e4m3fn),
    }
    said = {"mlp": {"format": "nvfp4"}, "self_attn.o_proj": {"format": "float8_e4m3fn"}}
    tensors, right = {"spiece_model": torch.ones(9, dtype=torch.uint8)}, {}
    for name, tensor in original().items():
        kind = next((each for each in formats if each in name and ".layers." in name), None)
        right[name] = tensor.clone()
        if kind is None:
            tensors[name] = tensor
            continue
        stored = quantise(formats[kind], tensor)
        formats[kind].expand({end: each.contiguous() for end, each in stored.items()}, right[name])
        tensors |= {name + end: each.contiguous() for end, each in stored.items()}
        text = list(json.dumps(said[kind]).encode())
        mark = name.removesuffix("weight") + "comfy_quant"
        tensors[mark] = torch.tensor(text, dtype=torch.uint8)
    save_file(tensors, folder(tmp_path) / "gemma_3_12B_it_fp4_mixed.safetensors")
    source = open_gemma(tmp_path)
    build_component(source, LTX_2_3)
    assert len(stored_weights(source, LTX_2_3)) == 3 * 4
    for name, tensor in right.items():
        assert torch.equal(read(source, name), tensor), name
