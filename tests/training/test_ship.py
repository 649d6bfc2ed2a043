"""What is trained is shipped in files that the engine takes."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from training.distilled_lora import Lora
from training.loop import Run, load_weights, save_weights
from training.transformer import Model
from training.upsampler import new_upsampler

from entracte import Engine, Request
from entracte.synthetic import trained
from entracte.synthetic.demo import CHECKPOINT
from training import distilled_lora, ship

CHECKPOINTS = Path(ship.__file__).parent / "checkpoints"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of all components: of those that there may not be yet, with random weights."""
    made = tmp_path_factory.mktemp("checkpoints")
    for name in ("video_vae", "audio_vae", "vocoder"):
        shutil.copy(CHECKPOINTS / f"{name}.safetensors", made)
    torch.manual_seed(0)
    save_weights(made / "upsampler.safetensors", new_upsampler(), torch.float16, 1)
    model = Model()
    for parameter in model.transformer.parameters():
        nn.init.normal_(parameter, std=0.05)
    save_weights(made / "transformer.safetensors", model, torch.float16, 1)
    return made


def test_factors_are_what_a_lora_adds() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"a": nn.Linear(4, 300), "b": nn.Sequential(nn.Linear(300, 3))})
    lora = Lora(module)
    for parameter in lora.parameters():
        nn.init.normal_(parameter)
    x, linears = torch.randn(2, 300), module["b"][0]
    factors = lora.published()
    down, up = (factors[f"diffusion_model.b.0.lora_{which}.weight"].float() for which in ("A", "B"))
    wanted = nn.functional.linear(x, linears.weight + up @ down, linears.bias)
    lora.add_to(module)
    torch.testing.assert_close(module["b"](x), wanted, rtol=2e-2, atol=5e-2)


@pytest.mark.slow
def test_a_video_is_made_of_what_is_shipped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(folder, 10.0, 2, torch.device("cpu"), 0, smoke=True)
    distilled_lora.fit(run, distilled_lora.SMOKE)
    packed, model = tmp_path / "model.tar.xz", tmp_path / "model"
    (tmp_path / "files").mkdir()
    ship.write_model(folder, tmp_path / "files")
    ship.pack(tmp_path / "files", packed)
    monkeypatch.setattr(trained, "ARCHIVE", packed)
    written = trained.write_trained_model(model)
    assert {path.name for path in written} >= {CHECKPOINT, ship.DISTILLED_LORA, "README.md"}
    wanted = Model()
    load_weights(folder / "transformer.safetensors", wanted)
    linear = "transformer_blocks.1.attn1.to_q"
    key = f"model.diffusion_model.{linear}"
    with safe_open(model / CHECKPOINT, framework="pt") as file:
        stored = file.get_tensor(f"{key}.weight").float() * file.get_tensor(f"{key}.weight_scale")
    weight = wanted.transformer.get_submodule(linear).weight
    assert isinstance(weight, torch.Tensor)
    torch.testing.assert_close(stored, weight.detach(), rtol=0.07, atol=1e-3)
    with Engine.open(model, device="cpu") as engine:
        result = engine.generate(
            Request("a red ball", height=64, width=64, num_frames=9, num_inference_steps=1)
        )
    assert result.frames is not None
    assert result.frames.shape == (9, 64, 64, 3)
