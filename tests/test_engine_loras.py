"""LoRAs in the engine: of every kind in every mode, of the connectors, and files that change."""

import shutil
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from entracte import Engine, Guidance, LoraSpec, Request, Residency, Result
from entracte.errors import LoraError, ResidencyError
from entracte.residency import Backend, Mode
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator

MODES = [
    Residency("original", resident_blocks=1),
    Residency("snapshot"),
    Residency("fused", resident_blocks=2, merged_blocks=1, places={"transformer": "disk"}),
]
Latents = dict[str, Tensor]


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Engine]:
    with Engine.open(demo_model, residency=Residency("resident"), backend=HostBackend()) as engine:
        yield engine


def generate(engine: Engine, *loras: Path, strength: float = 1.0) -> Result:
    """One stage of one step without guidance, of one picture."""
    request = Request(
        prompt="A quiet street",
        pipeline="one-stage",
        height=64,
        width=64,
        num_frames=1,
        num_inference_steps=1,
        video_guidance=Guidance(),
        audio_guidance=Guidance(),
        loras=tuple(LoraSpec(path=path, strength=strength) for path in loras),
    )
    return engine.generate(request, keep_frames=False)


def latents(engine: Engine, *loras: Path, strength: float = 1.0) -> Latents:
    return generate(engine, *loras, strength=strength).latents


def same(one: Latents, other: Latents) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def low_rank(engine: Engine, component: str, module: str, seed: int = 0) -> Latents:
    """A LoRA of one module."""
    rows, columns = engine.source.components[component].tensors[f"{module}.weight"].info.shape
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{module}.lora_A.weight": torch.randn(4, columns, generator=generator).bfloat16() * 0.2,
        f"{module}.lora_B.weight": torch.randn(rows, 4, generator=generator).bfloat16() * 0.2,
    }


def every_kind(engine: Engine) -> Latents:
    """Low-rank factors in three dtypes, differences, biases, LoHa, LoKr and DoRA, in all blocks."""
    tensors = engine.source.components["transformer"].tensors
    generator = torch.Generator().manual_seed(3)
    found: Latents = {}

    def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return (torch.randn(*shape, generator=generator) * 0.2).to(dtype)

    for block in range(4):
        attention = f"transformer_blocks.{block}.attn1"
        rows, columns = tensors[f"{attention}.to_q.weight"].info.shape
        for layer, dtype in (("to_q", torch.bfloat16), ("to_k", torch.float16)):
            found[f"{attention}.{layer}.lora_A.weight"] = random(4, columns, dtype=dtype)
            found[f"{attention}.{layer}.lora_B.weight"] = random(rows, 4, dtype=dtype)
        found[f"{attention}.to_q.dora_scale"] = random(rows, 1).abs() + 1
        found[f"{attention}.to_v.diff"] = random(rows, columns, dtype=torch.float32)
        found[f"{attention}.to_v.diff_b"] = random(rows)
        for number in (1, 2):
            found[f"{attention}.to_out.0.hada_w{number}_a"] = random(rows, 2)
            found[f"{attention}.to_out.0.hada_w{number}_b"] = random(2, columns)
        found[f"{attention}.to_out.0.alpha"] = torch.tensor(1.0)
        text = f"transformer_blocks.{block}.attn2.to_q"
        rows, columns = tensors[f"{text}.weight"].info.shape
        found[f"{text}.lokr_w1"] = random(2, 2)
        found[f"{text}.lokr_w2_a"] = random(rows // 2, 3)
        found[f"{text}.lokr_w2_b"] = random(3, columns // 2)
    rows, columns = tensors["patchify_proj.weight"].info.shape
    found["patchify_proj.lora_A.weight"] = random(2, columns, dtype=torch.float32)
    found["patchify_proj.lora_B.weight"] = random(rows, 2, dtype=torch.float32)
    found["patchify_proj.lora_B.bias"] = random(rows)
    return found


@pytest.mark.parametrize(
    "backend", [HostBackend, pytest.param(SimulatedAccelerator, marks=pytest.mark.slow)]
)
def test_every_kind_in_every_mode(demo_model: Path, backend: type[Backend], tmp_path: Path) -> None:
    path = tmp_path / "every.safetensors"
    with Engine.open(demo_model, residency=Residency("resident"), backend=backend()) as engine:
        save_file(every_kind(engine), path)
        plain, right = latents(engine), latents(engine, path, strength=0.7)
        assert not same(plain, right)
        for residency in MODES:
            engine.configure(residency)
            assert same(latents(engine, path, strength=0.7), right), residency
        assert same(latents(engine), plain)
        engine.configure(Residency("dynamic"))
        with pytest.raises(ResidencyError, match=r"weight is adapted by \w+: use mode fused"):
            latents(engine, path)


@pytest.mark.slow
def test_connectors_are_adapted_where_a_lora_has_keys_of_theirs(
    engine: Engine, tmp_path: Path
) -> None:
    """Contexts are kept by the prompt and by what the connectors were."""
    module = next(
        name.removesuffix(".weight")
        for name in engine.source.components["connectors"].tensors
        if name.endswith("attn1.to_v.weight") and name.startswith("video")
    )
    files = {
        "connectors": low_rank(engine, "connectors", module),
        "transformer": low_rank(engine, "transformer", "transformer_blocks.0.attn1.to_q"),
    }
    files["both"] = files["connectors"] | files["transformer"]
    paths = {name: tmp_path / f"{name}.safetensors" for name in files}
    for name, found in files.items():
        save_file(found, paths[name])
    engine.forget_prompts()
    results = {}
    for name, loras, strength, encoded in (
        ("plain", [], 1.0, 1),
        ("transformer", ["transformer"], 1.0, 0),  # it leaves the connectors alone
        ("connectors", ["connectors"], 1.0, 1),
        ("both", ["both"], 1.0, 1),
        ("two", ["connectors", "transformer"], 1.0, 0),
        ("weaker", ["connectors"], 0.5, 1),
        ("plain again", [], 1.0, 0),
    ):
        result = generate(engine, *(paths[lora] for lora in loras), strength=strength)
        results[name] = result.latents
        assert result.trace.counts.get("text_encodings", 0) == encoded, name
    assert same(results["two"], results["both"])
    assert same(results["plain again"], results["plain"])
    different = ["plain", "transformer", "connectors", "both", "weaker"]
    for one, other in combinations(different, 2):
        assert not same(results[one], results[other]), (one, other)
    engine.configure(Residency(places={"connectors": "snapshot"}))
    engine.forget_prompts()
    assert same(latents(engine, paths["both"]), results["both"])
    engine.configure(Residency())


def replaced(path: Path, by: Path) -> None:
    """Another file takes the path."""
    copy = path.with_suffix(".new")
    shutil.copyfile(by, copy)
    copy.replace(path)


def rewritten(path: Path, by: Path) -> None:
    """The same file gets other bytes, as `cp` does it."""
    shutil.copyfile(by, path)


@pytest.mark.slow
@pytest.mark.parametrize(("change", "mode"), [(replaced, "fused"), (rewritten, "original")])
def test_a_file_that_changed_is_read_anew(
    engine: Engine, tmp_path: Path, change: Callable[[Path, Path], None], mode: Mode
) -> None:
    module = "transformer_blocks.0.attn1.to_q"
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file(low_rank(engine, "transformer", module), one)
    metadata = {"note": "a header of another length" * 9}
    save_file(low_rank(engine, "transformer", module, seed=1), other, metadata)
    engine.configure(Residency(mode))
    before, after = latents(engine, one), latents(engine, other)
    assert not same(before, after)
    change(one, other)
    assert same(latents(engine, one), after)
    engine.configure(Residency())


def test_a_truncated_file_is_refused_and_the_engine_goes_on(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_file(low_rank(engine, "transformer", "transformer_blocks.0.attn1.to_q"), path)
    plain, styled = latents(engine), latents(engine, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(LoraError, match="truncated"):
        latents(engine, path)
    assert same(latents(engine), plain)
    path.write_bytes(content)
    assert same(latents(engine, path), styled)
