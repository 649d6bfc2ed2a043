"""Scales, against PEFT and diffusers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn

from entracte.errors import LoraError

from .model import ATTENTION, RANK, SHAPES, added, opened, pair, write

QUERY = f"{ATTENTION}.to_q"
METADATA = "lora_adapter_metadata"


class Tree(nn.Module):
    """The transformer's Linears of `SHAPES`, under their names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, size in SHAPES["transformer"].items():
            if not name.endswith(".weight") or len(size) != 2:
                continue
            *parents, last = name.removesuffix(".weight").split(".")
            place: nn.Module = self
            for parent in parents:
                if not hasattr(place, parent):
                    place.add_module(parent, nn.Module())
                place = place.get_submodule(parent)
            place.add_module(last, nn.Linear(size[1], size[0]))


LINEARS = ["to_q", "to_k", "to_out.0", "patchify_proj", "net.0.proj"]


def lora(**values: Any) -> LoraConfig:
    return LoraConfig(target_modules=LINEARS, init_lora_weights=False, **values)


CONFIGS = {
    "half": lora(r=4, lora_alpha=2),
    "twice": lora(r=2, lora_alpha=4),
    "rank-stabilised": lora(r=4, lora_alpha=4, use_rslora=True),
    "alpha by ends of names": lora(r=4, lora_alpha=4, alpha_pattern={"to_q": 1, "attn1.to_k": 3}),
    "alpha by whole names": lora(
        r=4, lora_alpha=4, alpha_pattern={f"^{QUERY}": 1, "^to_k": 9, "patchify_proj": 2}
    ),
    "alpha by expressions": lora(
        r=4, lora_alpha=4, alpha_pattern={r"transformer_blocks\.\d+\.attn1\.to_q": 1, ".*proj": 2}
    ),
    "the first pattern counts": lora(r=4, lora_alpha=4, alpha_pattern={"to_q": 1, QUERY: 9}),
    "ranks": lora(r=4, lora_alpha=2, rank_pattern={"to_q": 2, r"ff\.net.*": 6}),
    "all at once": lora(
        r=4, lora_alpha=3, rank_pattern={"to_q": 2}, alpha_pattern={"to_q": 5}, use_rslora=True
    ),
    "DoRA": lora(r=4, lora_alpha=2, use_dora=True),
    "biases": lora(r=4, lora_alpha=2, lora_bias=True),
    "LoHa": LoHaConfig(r=4, alpha=2, target_modules=LINEARS, init_weights=False),
    "LoHa by patterns": LoHaConfig(
        r=4, alpha=2, target_modules=LINEARS, init_weights=False,
        rank_pattern={"to_q": 2}, alpha_pattern={"to_k": 7},
    ),
    "LoKr": LoKrConfig(r=2, alpha=1, target_modules=LINEARS, init_weights=False),
    "LoKr in factors": LoKrConfig(
        r=1, alpha=3, target_modules=LINEARS, init_weights=False, decompose_both=True,
        decompose_factor=4,
    ),
    "LoKr of whole matrices": LoKrConfig(
        r=64, alpha=16, target_modules=LINEARS, init_weights=False
    ),
}  # fmt: skip


def trained(config: PeftConfig, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Save an adapter of random numbers; the parameters before, and merged by PEFT."""
    tree = Tree()
    before = {name: tensor.detach().clone() for name, tensor in tree.named_parameters()}
    model = get_peft_model(tree, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_magnitude_vector" in name:
                parameter.mul_(1.5)
            elif "lora_B" in name and name.endswith(".bias"):
                parameter.normal_()
    model.save_pretrained(str(folder))
    merged = model.merge_and_unload()
    return before, {name: tensor.detach() for name, tensor in merged.named_parameters()}


def check(path: Path, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """What is read from the path must turn the parameters before into those after."""
    file = opened(path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert file.changes["transformer"].keys() == changed
    for name in changed:
        merged = added(file, name, weight=before[name])
        torch.testing.assert_close(merged, after[name], rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("folder", [True, False])
def test_as_peft(tmp_path: Path, name: str, folder: bool) -> None:
    before, after = trained(CONFIGS[name], tmp_path)
    check(tmp_path if folder else tmp_path / "adapter_model.safetensors", before, after)


def test_the_only_file_of_a_folder_may_have_any_name(tmp_path: Path) -> None:
    before, after = trained(CONFIGS["half"], tmp_path)
    renamed = (tmp_path / "adapter_model.safetensors").rename(tmp_path / "style.safetensors")
    check(renamed, before, after)
    write(tmp_path / "other.safetensors", pair(QUERY))
    (notice,) = opened(renamed).notices
    assert "adapter_config.json beside it is not read" in notice.message


def with_metadata(path: Path, values: dict[str, Any], alpha: float | None = None) -> Path:
    tensors = pair(f"transformer.{QUERY}")
    if alpha is not None:
        tensors[f"transformer.{QUERY}.alpha"] = torch.tensor(alpha)
    return write(path, tensors, {METADATA: json.dumps(values)})


def scale(path: Path) -> float:
    lora = opened(path)
    full = added(lora, f"{QUERY}.weight")
    down, up = pair(QUERY).values()
    return round(float(full.norm() / (up @ down).norm()), 5)


HEADERS = {
    "half": ({"transformer.r": 4, "transformer.lora_alpha": 2}, 0.5),
    "of no component": ({"r": 4, "lora_alpha": 2}, 0.5),
    "of another component": ({"connectors.r": 4, "connectors.lora_alpha": 2}, 1.0),
    "of a text encoder": ({"text_encoder.r": 4, "text_encoder.lora_alpha": 2}, 1.0),
    "rank-stabilised": (
        {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer.use_rslora": True}, 1.0),
    "by pattern": (
        {"transformer.r": 4, "transformer.lora_alpha": 2,
         "transformer.alpha_pattern": {"attn1.to_q": 12}}, 3.0),
    "by rank pattern": (
        {"transformer.r": 32, "transformer.lora_alpha": 2,
         "transformer.rank_pattern": {"to_q": RANK}}, 0.5),
    "of unknown options": (
        {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer.later_option": [1]}, 0.5),
    "of empty options": (
        {"transformer.r": 4, "transformer.lora_alpha": 2, "transformer.rank_pattern": None,
         "transformer.modules_to_save": None}, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_metadata_in_the_header(tmp_path: Path, name: str) -> None:
    values, expected = HEADERS[name]
    assert scale(with_metadata(tmp_path / "lora.safetensors", values)) == expected


def test_as_diffusers(tmp_path: Path) -> None:
    """A LoRA that diffusers' own pipeline saves is applied as it applies it."""
    from diffusers import LTX2Pipeline
    from peft.utils import get_peft_model_state_dict

    tree = Tree()
    weight = tree.get_submodule(QUERY).weight.detach().clone()
    model = get_peft_model(tree, lora(r=4, lora_alpha=2, alpha_pattern={"to_k": 8}))
    LTX2Pipeline.save_lora_weights(
        str(tmp_path),
        transformer_lora_layers=get_peft_model_state_dict(model.base_model.model),
        transformer_lora_adapter_metadata=model.peft_config["default"].to_dict()
        | {"task_type": None, "target_modules": LINEARS, "peft_type": "LORA"},
    )
    merged = model.merge_and_unload()
    for path in (tmp_path, tmp_path / "pytorch_lora_weights.safetensors"):
        file = opened(path)
        found = added(file, f"{QUERY}.weight", weight=weight)
        torch.testing.assert_close(found, merged.get_submodule(QUERY).weight.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_alpha_beside_factors(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    alpha = torch.full(shape, 2, dtype=dtype)
    path = write(tmp_path / "lora.safetensors", pair(QUERY) | {f"{QUERY}.alpha": alpha})
    assert scale(path) == 0.5


def test_the_nearest_alpha_wins(tmp_path: Path) -> None:
    """Beside the factors, then in the header, then in a file of its own."""
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    path = tmp_path / "adapter_model.safetensors"
    assert scale(write(path, pair(QUERY))) == 0.5
    header = {"transformer.r": 4, "transformer.lora_alpha": 12}
    assert scale(with_metadata(path, header)) == 3.0
    assert scale(with_metadata(path, header, alpha=8.0)) == 2.0


def test_what_disagrees_is_said(tmp_path: Path) -> None:
    header = {"transformer.r": 4, "transformer.lora_alpha": 12}
    path = with_metadata(tmp_path / "lora.safetensors", header, alpha=8.0)
    (notice,) = opened(path).notices
    assert "alpha" in notice.message
    assert notice.keys == (f"transformer.{QUERY}.alpha",)
    agreeing = with_metadata(tmp_path / "lora.safetensors", header, alpha=12.0)
    assert opened(agreeing).notices == ()


def test_kohyas_metadata_is_no_scale(tmp_path: Path) -> None:
    """Converters that multiply alpha into the factors leave it in the metadata."""
    metadata = {"ss_network_alpha": "2.0", "ss_network_dim": "4"}
    assert scale(write(tmp_path / "lora.safetensors", pair(QUERY), metadata)) == 1.0


REFUSED = {
    "another rank": ({"r": 8, "lora_alpha": 8}, "has rank 4, and 8 by"),
    "alpha in words": ({"r": 4, "lora_alpha": "two"}, "wrong lora_alpha"),
    "alpha of no number": ({"r": 4, "lora_alpha": math.nan}, "wrong lora_alpha"),
    "infinite alpha": ({"r": 4, "lora_alpha": math.inf}, "wrong lora_alpha"),
    "rank of nothing": ({"r": 0, "lora_alpha": 2}, "wrong r"),
    "fractional rank": ({"r": 4.5, "lora_alpha": 2}, "wrong r"),
    "patterns in a list": ({"r": 4, "alpha_pattern": ["to_q"]}, "wrong alpha_pattern"),
    "alpha in a pattern": ({"r": 4, "alpha_pattern": {"to_q": "2"}}, "wrong alpha_pattern.to_q"),
    "no expression": ({"r": 4, "alpha_pattern": {"to_q(": 2}}, "not a regular expression"),
    "an ambiguous set": ({"r": 4, "alpha_pattern": {"[[a-z]to_q": 2}}, "ambiguous set"),
    "an endless expression": ({"r": 4, "alpha_pattern": {"(a+)+b": 2}}, "too complicated"),
    "a long expression": ({"r": 4, "rank_pattern": {"a|" * 200: 2}}, "too complicated"),
    "DoRA without magnitudes": ({"r": 4, "lora_alpha": 4, "use_dora": True}, "no magnitude"),
    "OFT": ({"peft_type": "OFT", "r": 4}, "it is OFT"),
    "PiSSA": ({"r": 4, "lora_alpha": 4, "init_lora_weights": "pissa_niter_16"}, "changed base"),
    "QALoRA": ({"r": 4, "lora_alpha": 4, "use_qalora": True}, "sets use_qalora"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("place", ["folder", "header"])
def test_configurations_that_are_refused(tmp_path: Path, name: str, place: str) -> None:
    config, words = REFUSED[name]
    path = tmp_path / "adapter_model.safetensors"
    if place == "folder":
        write(path, pair(f"transformer.{QUERY}"))
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    else:
        with_metadata(path, {f"transformer.{key}": value for key, value in config.items()})
    with pytest.raises(LoraError, match=words) as error:
        opened(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null", "\xff", '{"r": 1e999}'])
def test_damaged_configurations(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "adapter_model.safetensors", pair(QUERY))
    (tmp_path / "adapter_config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(LoraError, match="adapter_config.json"):
        opened(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    if text.isascii():
        with pytest.raises(LoraError, match="lora_adapter_metadata"):
            opened(write(path, pair(QUERY), {METADATA: text}))
