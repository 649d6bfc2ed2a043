"""LoRAs in the engine: of every kind in every mode, of the connectors, and files that change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from entracte import Engine, Guidance, LoraSpec, Request, Residency
from entracte.errors import LoraError, ResidencyError
from entracte.residency import Backend
from entracte.residency.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator

MODES = [
    Residency("original", resident_blocks=1),
    Residency("snapshot"),
    Residency("fused", resident_blocks=2, merged_blocks=1, places={"transformer": "disk"}),
]
Latents = dict[str, Tensor]


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[Engine]:
    with Engine.open(demo_model, backend=HostBackend()) as engine:
        yield engine


def latents(engine: Engine, *loras: Path, strength: float = 1.0, **values: object) -> Latents:
    """Of one stage of one step without guidance, or of what `values` ask for."""
    plain = {
        "prompt": "A quiet street",
        "pipeline": "one-stage",
        "height": 64,
        "width": 64,
        "num_frames": 9,
        "num_inference_steps": 1,
        "video_guidance": Guidance(),
        "audio_guidance": Guidance(),
    }
    specs = tuple(LoraSpec(path=path, strength=strength) for path in loras)
    request = Request(**(plain | {"loras": specs} | values))
    return engine.generate(request, keep_frames=False).latents


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
    with Engine.open(demo_model, backend=backend()) as engine:
        save_file(every_kind(engine), path)
        plain, right = latents(engine), latents(engine, path, strength=0.7)
        assert not same(plain, right)
        for residency in MODES:
            engine.configure(residency)
            assert same(latents(engine, path, strength=0.7), right), residency
            assert same(latents(engine), plain), residency
        engine.configure(Residency("dynamic"))
        with pytest.raises(ResidencyError, match=r"weight is adapted by \w+: use mode fused"):
            latents(engine, path)


def test_connectors_are_adapted_where_a_lora_has_keys_of_theirs(
    engine: Engine, tmp_path: Path
) -> None:
    tensors = engine.source.components["connectors"].tensors
    module = next(
        name.removesuffix(".weight")
        for name in tensors
        if name.endswith("attn1.to_v.weight") and name.startswith("video")
    )
    of_connectors = low_rank(engine, "connectors", module)
    of_transformer = low_rank(engine, "transformer", "transformer_blocks.0.attn1.to_q")
    files = {"connectors": of_connectors, "transformer": of_transformer}
    files["both"] = of_connectors | of_transformer
    paths = {name: tmp_path / f"{name}.safetensors" for name in files}
    for name, found in files.items():
        save_file(found, paths[name])
    plain = latents(engine)
    results = {name: latents(engine, path) for name, path in paths.items()}
    for one, other in (("connectors", "both"), ("transformer", "both")):
        assert not same(results[one], results[other])
        assert not same(results[one], plain)
    # Two LoRAs of two components are one of both; and nothing is left behind.
    assert same(latents(engine, paths["connectors"], paths["transformer"]), results["both"])
    engine.forget_prompts()
    assert same(latents(engine), plain)
    for place in ("snapshot", "disk"):
        engine.configure(Residency(places={"connectors": place}))
        engine.forget_prompts()
        assert same(latents(engine, paths["both"]), results["both"])
    engine.configure(Residency())


def test_contexts_are_kept_by_what_the_connectors_were(engine: Engine, tmp_path: Path) -> None:
    module = "text_embedding_projection.video_aggregate_embed"
    save_file(low_rank(engine, "connectors", module), tmp_path / "text.safetensors")
    style = low_rank(engine, "transformer", "transformer_blocks.0.attn1.to_q")
    save_file(style, tmp_path / "style.safetensors")

    def encodings(*loras: Path, strength: float = 1.0) -> int:
        specs = tuple(LoraSpec(path=path, strength=strength) for path in loras)
        request = Request(
            prompt="Rain", pipeline="one-stage", height=64, width=64, num_frames=9,
            num_inference_steps=1, video_guidance=Guidance(), audio_guidance=Guidance(),
            loras=specs,
        )  # fmt: skip
        counts = engine.generate(request, keep_frames=False).trace.counts
        return int(counts.get("text_encodings", 0))

    text, other = tmp_path / "text.safetensors", tmp_path / "style.safetensors"
    assert encodings() == 1
    assert encodings(other) == 0  # it leaves the connectors alone
    assert encodings(text) == 1
    assert encodings(text, other) == 0
    assert encodings(text, strength=0.5) == 1
    assert encodings() == 0


def replaced(path: Path, by: Path) -> None:
    """Another file takes the path."""
    copy = path.with_suffix(".new")
    shutil.copyfile(by, copy)
    copy.replace(path)


@pytest.mark.parametrize("change", [replaced, lambda path, by: shutil.copyfile(by, path)])
@pytest.mark.parametrize("wanted", [Residency("fused"), Residency("original")])
def test_a_file_that_changed_is_read_anew(
    engine: Engine, tmp_path: Path, change: object, wanted: Residency
) -> None:
    module = "transformer_blocks.0.attn1.to_q"
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file(low_rank(engine, "transformer", module), one)
    longer = low_rank(engine, "transformer", module, seed=1)
    save_file(longer, other, metadata={"note": "a header of another length" * 9})
    engine.configure(wanted)
    before, after = latents(engine, one), latents(engine, other)
    assert not same(before, after)
    assert callable(change)
    change(one, other)
    assert same(latents(engine, one), after)
    assert same(latents(engine, one, strength=0.5), latents(engine, other, strength=0.5))
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
