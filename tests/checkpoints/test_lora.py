from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from entracte.checkpoints.lora import open_lora
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.errors import LoraError
from entracte.residency.merge import merge
from tests.components import read_changes

WEIGHTS = {
    "patchify_proj.weight": (16, 8),
    "transformer_blocks.0.attn1.to_q.weight": (16, 16),
    "transformer_blocks.0.ff.net.0.proj.weight": (64, 16),
    "transformer_blocks.0.attn1.q_norm.weight": (16,),
}
RANK = 4
MODULE = "transformer_blocks.0.attn1.to_q"


def factors() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(RANK, 16), torch.randn(16, RANK)


def write(path: Path, tensors: dict[str, Tensor]) -> SafetensorsFile:
    save_file(tensors, path)
    return SafetensorsFile(path)


NAMINGS = {
    "published": (f"diffusion_model.{MODULE}", "lora_A.weight", "lora_B.weight"),
    "with model": (f"model.diffusion_model.{MODULE}", "lora_A.weight", "lora_B.weight"),
    "bare": (MODULE, "lora_A.weight", "lora_B.weight"),
    "diffusers": (f"transformer.{MODULE}", "lora_A.weight", "lora_B.weight"),
    "peft": (f"base_model.model.{MODULE}", "lora_A.default.weight", "lora_B.default.weight"),
    "down, up": (f"diffusion_model.{MODULE}", "lora_down.weight", "lora_up.weight"),
    "kohya": (f"lora_unet_{MODULE.replace('.', '_')}", "lora_down.weight", "lora_up.weight"),
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_every_naming_gives_the_same_merge(
    tmp_path: Path, naming: str, alpha: float | None
) -> None:
    down, up = factors()
    prefix, a, b = NAMINGS[naming]
    tensors = {f"{prefix}.{a}": down, f"{prefix}.{b}": up}
    if alpha is not None:
        tensors[f"{prefix}.alpha"] = torch.tensor(alpha)
    lora = open_lora(write(tmp_path / "lora.safetensors", tensors), {"transformer": WEIGHTS})
    assert list(lora.pairs) == [MODULE]
    assert lora.ranks == [RANK]
    weight = torch.zeros(16, 16)
    merged = merge(weight, [(read_changes(lora)[f"{MODULE}.weight"], 0.5)])
    scale = 0.5 * (1.0 if alpha is None else alpha / RANK)
    assert torch.allclose(merged, scale * (up @ down), atol=1e-5)


def test_diffusers_names_are_translated(tmp_path: Path) -> None:
    tensors = {
        "transformer.proj_in.lora_A.weight": torch.zeros(RANK, 8),
        "transformer.proj_in.lora_B.weight": torch.zeros(16, RANK),
    }
    lora = open_lora(write(tmp_path / "lora.safetensors", tensors), {"transformer": WEIGHTS})
    assert list(lora.pairs) == ["patchify_proj"]


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    tensors = {
        f"diffusion_model.{MODULE}.lora_A.weight": torch.zeros(RANK, 32),
        f"diffusion_model.{MODULE}.lora_B.weight": torch.zeros(32, RANK),
    }
    with pytest.raises(LoraError, match=r"to_q, \[32, 4\] and \[4, 32\], do not fit .*\[16, 16\]"):
        open_lora(write(tmp_path / "lora.safetensors", tensors), {"transformer": WEIGHTS})


def test_keys_that_match_nothing(tmp_path: Path) -> None:
    tensors = {
        "unet.down.0.lora_A.weight": torch.zeros(RANK, 16),
        "unet.down.0.lora_B.weight": torch.zeros(16, RANK),
    }
    with pytest.raises(LoraError, match="0 of 2 keys match the transformer"):
        open_lora(write(tmp_path / "lora.safetensors", tensors), {"transformer": WEIGHTS})


def test_no_lora(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="is no LoRA: none of its 1 tensors"):
        open_lora(
            write(tmp_path / "x.safetensors", {"a": torch.zeros(2)}), {"transformer": WEIGHTS}
        )


def test_half_a_pair(tmp_path: Path) -> None:
    tensors = {f"diffusion_model.{MODULE}.lora_A.weight": torch.zeros(RANK, 16)}
    with pytest.raises(LoraError, match="has one factor and not the other"):
        open_lora(write(tmp_path / "lora.safetensors", tensors), {"transformer": WEIGHTS})


def test_unmatched_keys_are_reported(tmp_path: Path) -> None:
    down, up = factors()
    tensors = {
        f"diffusion_model.{MODULE}.lora_A.weight": down,
        f"diffusion_model.{MODULE}.lora_B.weight": up,
        "text_encoder.x.lora_A.weight": down.clone(),
    }
    lora = open_lora(write(tmp_path / "lora.safetensors", tensors), {"transformer": WEIGHTS})
    assert lora.unmatched == ("text_encoder.x.lora_A.weight",)
