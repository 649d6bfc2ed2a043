import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entracte.checkpoints.lora.describe import published_parameters
from entracte.checkpoints.safetensors_file import SafetensorsFile
from entracte.checkpoints.sources import Located
from entracte.cli.main import run
from entracte.synthetic.demo import CHECKPOINT, DISTILLED_LORA, write_demo_model


def test_a_folder(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(demo_model), "--json"]) == 0
    described = {d["kind"]: d for d in json.loads(capsys.readouterr().out)}
    assert described.keys() == {
        "model folder",
        "checkpoint",
        "LoRA",
        "latent upsampler",
        "Gemma 3 folder",
    }
    checkpoint = described["checkpoint"]
    assert checkpoint["version"] == "2.3"
    parts = {part["name"]: part for part in checkpoint["parts"]}
    assert parts.keys() == {"transformer", "connectors", "video_vae", "audio_vae", "vocoder"}
    file = SafetensorsFile(demo_model / CHECKPOINT)
    assert sum(p["parameters"] for p in parts.values()) == sum(
        info.parameters for info in file.tensors.values()
    )
    assert sum(p["nbytes"] for p in parts.values()) == sum(i.nbytes for i in file.tensors.values())
    facts = described["LoRA"]["facts"]
    assert facts["ranks"] == [4, 8]
    assert facts["covers"] == "164 of 164 linears of 4 blocks"
    assert facts["alpha"] == "none"


def test_a_published_lora_covers_every_linear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The full-size transformer has 1,660 linears; this LoRA leaves one of them out."""
    linears = [
        name.removesuffix(".weight")
        for name in published_parameters()["transformer"]
        if name.endswith(".weight") and "_norm" not in name
    ]
    tensors = {}
    for name in linears[1:]:
        tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.zeros(1, 1)
        tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.zeros(1, 1)
    save_file(tensors, tmp_path / "lora.safetensors")
    assert run(["inspect", str(tmp_path / "lora.safetensors")]) == 0
    assert "covers: 1,659 of 1,660 linears of 48 blocks" in capsys.readouterr().out


def test_no_weight_is_read(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: SafetensorsFile, name: str, out: torch.Tensor) -> None:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(SafetensorsFile, "read", forbidden)
    assert run(["inspect", str(demo_model), str(demo_model / DISTILLED_LORA)]) == 0


def test_words(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(demo_model / CHECKPOINT)]) == 0
    out = capsys.readouterr().out
    assert "checkpoint, LTX-2.3" in out
    assert "2,206,112" in out


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tmp_path)]) == 2
    assert "holds no model files" in capsys.readouterr().err
    assert run(["inspect", str(tmp_path / "gone.safetensors"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "CheckpointError"


def test_the_demo_model_is_the_same_every_time(demo_model: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    for path in write_demo_model(tmp_path):
        other = demo_model / path.relative_to(tmp_path)
        if path.suffix != ".safetensors":
            assert path.read_bytes() == other.read_bytes()
            continue
        one, two = SafetensorsFile(path), SafetensorsFile(other)
        assert one.metadata == two.metadata
        assert one.tensors.keys() == two.tensors.keys()
        assert all(
            torch.equal(Located(one, name).tensor(), Located(two, name).tensor())
            for name in one.tensors
        )
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers go on


def test_demo_model_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(["demo-model", str(tmp_path / "file" / "model")]) == 2
    assert "cannot write the model" in capsys.readouterr().err


def test_any_upsampler_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.dumps({"spatial_upsample": False, "temporal_upsample": True})
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "up.safetensors", {"config": config})
    assert run(["inspect", str(tmp_path / "up.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "latent upsampler" in out
    assert "temporal_upsample: True" in out


def test_every_file_is_shown_also_after_a_refused_one(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, lora = tmp_path / "gone.safetensors", demo_model / DISTILLED_LORA
    paths = [str(lora), str(gone), str(lora)]
    assert run(["inspect", *paths]) == 2
    out = capsys.readouterr().out
    assert out.count(": LoRA") == 2
    assert f"{gone}: refused" in out
    assert run(["inspect", *paths, "--json"]) == 2
    first, refused, last = json.loads(capsys.readouterr().out)
    assert first == last
    assert refused["path"] == str(gone)
    assert refused["error"]["type"] == "CheckpointError"


QUERY = "transformer_blocks.0.attn1.to_q"
KINDS: dict[str, tuple[dict[str, list[int]], dict[str, str], str]] = {
    "LoRA": ({"lora_A.weight": [2, 4], "lora_B.weight": [4, 2]}, {}, "LoRA"),
    "IC-LoRA": (
        {"lora_A.weight": [2, 4], "lora_B.weight": [4, 2]},
        {"reference_downscale_factor": "2"}, "IC-LoRA"),
    "DoRA": (
        {"lora_A.weight": [2, 4], "lora_B.weight": [4, 2], "dora_scale": [4, 1]}, {}, "DoRA"),
    "LoHa": (
        {"hada_w1_a": [4, 2], "hada_w1_b": [2, 4], "hada_w2_a": [4, 2], "hada_w2_b": [2, 4]},
        {}, "LoHa"),
    "LoKr": ({"lokr_w1": [2, 2], "lokr_w2": [2, 2]}, {}, "LoKr"),
    "full": ({"diff": [4, 4]}, {}, "full difference"),
    "Tucker": ({"lokr_w1": [2, 2], "lokr_w2_a": [2, 2], "lokr_t2": [2, 2, 1, 1]}, {}, "adapter"),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_adapters(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    shapes, metadata, kind = KINDS[name]
    tensors = {f"diffusion_model.{QUERY}.{key}": torch.ones(size) for key, size in shapes.items()}
    tensors["lora_te_text_model.lora_down.weight"] = torch.ones(1, 1)
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    assert run(["inspect", str(tmp_path / "a.safetensors"), "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert described["kind"] == kind
    facts = described["facts"]
    assert facts["keys of a text encoder"] == 1
    assert facts.items() >= metadata.items()
    if name == "Tucker":
        assert "LoKr with Tucker decomposition (lokr_t2)" in facts["such as"]
    else:
        assert facts["keys that cannot be applied"] == 0


def test_a_folder_of_peft(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"base_model.model.{QUERY}"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 4), f"{name}.lora_B.weight": torch.ones(4, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 1, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert run(["inspect", str(tmp_path), "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert described["kind"] == "LoRA"
    assert described["facts"]["alpha"] == "1 by adapter_config.json, rank-stabilised"
