"""The engine in every mode: the same bits, from files read once, in any order of modes."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from entracte import (
    ControlVideo,
    Engine,
    ExtendedVideo,
    Guidance,
    LoraSpec,
    Request,
    Residency,
    SoundCondition,
    SourceVideo,
)
from entracte.errors import BudgetError, Cancelled, DeviceFault, OutOfMemory, ResidencyError
from entracte.models.kernels import Kernels
from entracte.residency import Backend
from entracte.residency.backends.host import HostBackend
from entracte.residency.simulated import SimulatedAccelerator
from entracte.synthetic.demo import DISTILLED_LORA

SOUND = Path(__file__).parent.parent / "data" / "pipelines" / "audio48.wav"
RETAKE = SOUND.parent / "retake.mp4"

BLOCKS = 4
DIALS = (None, 0, 1, 2, BLOCKS)
EXACT = [
    Residency(),
    *(Residency("original", resident_blocks=m) for m in DIALS),
    *(Residency("snapshot", "low-vram", resident_blocks=m) for m in DIALS),
    *(Residency("snapshot", "aggressive", resident_blocks=m) for m in DIALS),
    *(Residency("fused", resident_blocks=m, merged_blocks=k) for m in DIALS for k in DIALS[1:]),
]
PLACED = [
    Residency("fused", places={"transformer": "disk", "text_encoder": "streamed"}),
    Residency("snapshot", places={"text_encoder": "snapshot", "video_vae": "disk"}),
    Residency("original", places={"transformer": "disk", "vocoder": "snapshot"}),
    Residency("fused", resident_blocks=1, places={"transformer": "disk", "upsampler": "disk"}),
]


UNGUIDED = {"video_guidance": Guidance(), "audio_guidance": Guidance()}


def small(**values: object) -> Request:
    """Without guidance, which asks nothing more of weights than more rows."""
    size = {"height": 128, "width": 128, "num_frames": 9, "num_inference_steps": 2}
    return Request(**({"prompt": "A quiet street"} | size | UNGUIDED | values))


def slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def latents(engine: Engine, **values: object) -> dict[str, Tensor]:
    return engine.generate(small(**values), keep_frames=False).latents


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(
        float((one[name].double() - other[name].double()).norm() / other[name].double().norm())
        for name in one
    )


def base_bytes_read(engine: Engine) -> int:
    """Bytes of the transformer's file that were handed out."""
    tensors = engine.source.components["transformer"].tensors
    return next(iter(tensors.values())).file.bytes_taken


@pytest.fixture(scope="module")
def engines(demo_model: Path) -> Iterator[dict[str, Engine]]:
    """One for each backend. Every test finds them as the last one left them."""
    opened = {
        backend.name: Engine.open(demo_model, backend=backend)
        for backend in (HostBackend(), SimulatedAccelerator())
    }
    yield opened
    for each in opened.values():
        each.close()


@pytest.fixture(scope="module")
def expected(demo_model: Path) -> dict[str, Tensor]:
    with Engine.open(demo_model, residency=Residency("resident")) as engine:
        return latents(engine)


@pytest.fixture(scope="module")
def user_loras(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoraSpec, ...]:
    """A LoRA of every linear, and one of a few."""
    folder = tmp_path_factory.mktemp("loras")
    generator = torch.Generator().manual_seed(5)
    theirs = load_file(demo_model / DISTILLED_LORA)
    random_ones = {
        name: torch.randn(tensor.shape, generator=generator).bfloat16() * 0.1
        for name, tensor in theirs.items()
    }
    few = {name: tensor for name, tensor in random_ones.items() if "attn1.to_q" in name}
    save_file(random_ones, folder / "every.safetensors")
    save_file(few, folder / "few.safetensors")
    return (
        LoraSpec(path=folder / "every.safetensors", strength=0.5),
        LoraSpec(path=folder / "few.safetensors", strength=1.5),
    )


@pytest.mark.slow
def test_the_two_acts_differ(expected: dict[str, Tensor], demo_model: Path) -> None:
    """What the other tests compare with has merged weights in stage 2, and in stage 2 only."""
    lora = demo_model / DISTILLED_LORA, 0.0
    with Engine.open(demo_model, distilled_lora=lora, residency=Residency("resident")) as engine:
        plain = latents(engine)
    assert torch.equal(plain["stage1.video_latent"], expected["stage1.video_latent"])
    assert (
        distance(
            {"video": plain["stage2.video_latent"]}, {"video": expected["stage2.video_latent"]}
        )
        > 0.1
    )


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("backend", "count"), [("host", 2), ("simulated", 4), slow("host", 36), slow("simulated", 8)]
)
def test_every_mode_gives_the_same_bits_without_reading_again(
    engines: dict[str, Engine], expected: dict[str, Tensor], backend: str, count: int
) -> None:
    """On one open engine, in shuffled order: every request finds what the last mode left."""
    assert len(EXACT) == 36
    engine = engines[backend]
    engine.configure(Residency())
    engine.generate(small(), keep_frames=False)
    read = base_bytes_read(engine)
    for residency in random.Random(1).sample(EXACT, count):
        engine.configure(residency)
        assert same(latents(engine), expected), residency
    assert base_bytes_read(engine) == read


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("pipeline", "backend", "count"),
    [
        ("hq", "host", 2),
        *(slow("hq", "host", 36), slow("hq", "simulated", 8)),
        *(slow("keyframes", "host", 4), slow("keyframes", "simulated", 2)),
        *(slow("retake", "host", 4), slow("retake", "simulated", 2)),
        *(slow("extend", "host", 4), slow("extend", "simulated", 2)),
        *(slow("ic-lora", "host", 4), slow("ic-lora", "simulated", 2)),
        *(slow("audio-to-video", "host", 4), slow("audio-to-video", "simulated", 2)),
        *(slow("distilled-one-stage", "host", 4), slow("distilled-one-stage", "simulated", 2)),
    ],
)
def test_every_recipe_gives_the_same_bits_in_every_mode(
    engines: dict[str, Engine],
    user_loras: tuple[LoraSpec, ...],
    pipeline: str,
    backend: str,
    count: int,
) -> None:
    """Of `hq`, both acts have merged weights, and not the same ones; of others, none may have."""
    values: dict[str, object] = {"pipeline": pipeline}
    if pipeline == "audio-to-video":
        values["sound"] = SoundCondition(SOUND)
    if pipeline == "retake":
        values["source"] = SourceVideo(RETAKE, 0.2, 0.3)
    if pipeline == "extend":
        values |= {"extended": ExtendedVideo(RETAKE, 0.3, 0.3), "num_frames": 33}
    if pipeline == "ic-lora":
        weighed = ControlVideo(RETAKE, attention=0.5, mask=RETAKE)
        values |= {"controls": [weighed], "loras": user_loras[:1]}
    if pipeline.startswith(("distilled", "retake", "extend", "ic-lora")):
        values["num_inference_steps"] = None
    engine = engines[backend]
    engine.configure(Residency())
    wanted = latents(engine, **values)
    for residency in random.Random(count).sample(EXACT, count):
        engine.configure(residency)
        assert same(latents(engine, **values), wanted), residency


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("backend", "number"),
    [
        *(("host", 1), ("host", 3), ("simulated", 0), ("simulated", 2)),
        *(slow("host", 0), slow("host", 2), slow("simulated", 1), slow("simulated", 3)),
    ],
)
def test_every_place_gives_the_same_bits(
    engines: dict[str, Engine], expected: dict[str, Tensor], backend: str, number: int
) -> None:
    engine = engines[backend]
    engine.configure(PLACED[number])
    for _ in range(2):
        assert same(latents(engine), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "dial"),
    [("host", None), ("simulated", 1), slow("host", 1), slow("simulated", None)],
)
def test_dynamic_is_close(
    engines: dict[str, Engine], expected: dict[str, Tensor], backend: str, dial: int | None
) -> None:
    engine = engines[backend]
    engine.configure(Residency("dynamic", resident_blocks=dial))
    found = latents(engine)
    assert torch.equal(found["stage1.video_latent"], expected["stage1.video_latent"])
    assert 0 < distance(found, expected) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "count", "some"),
    [("host", 2, 3), slow("host", 1, 5), slow("host", 2, 5)]
    + [slow("simulated", 1, 2), slow("simulated", 2, 2)],
)
def test_user_loras_in_every_mode(
    engines: dict[str, Engine],
    user_loras: tuple[LoraSpec, ...],
    expected: dict[str, Tensor],
    backend: str,
    count: int,
    some: int,
) -> None:
    """Three requests in shuffled modes: with LoRAs, without, and with them again."""
    loras, engine = user_loras[:count], engines[backend]
    engine.configure(Residency())
    with_loras = latents(engine, loras=loras)
    assert distance(with_loras, expected) > 0.01
    modes = [Residency("original"), Residency("snapshot"), Residency("snapshot", "aggressive")]
    modes += [Residency("fused", resident_blocks=2, merged_blocks=1), Residency("fused")]
    for residency in random.Random(count).sample(modes, some):
        engine.configure(residency)
        assert same(latents(engine, loras=loras), with_loras), residency
        assert same(latents(engine), expected), residency


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["host", slow("simulated")])
def test_other_prompts_and_sizes_leave_the_same_state(
    engines: dict[str, Engine], expected: dict[str, Tensor], backend: str
) -> None:
    engine = engines[backend]
    engine.configure(Residency("snapshot", places={"text_encoder": "snapshot"}))
    engine.forget_prompts()
    first = latents(engine)
    state = engine.residency()
    latents(engine, prompt="Another street", seed=3)
    latents(engine, width=192, pipeline="distilled", num_inference_steps=None)
    latents(engine, pipeline="one-stage")
    assert same(latents(engine), first)
    assert same(first, expected)
    assert engine.residency() == state


CANCELLED = [Residency("snapshot"), Residency("fused", merged_blocks=2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop_at", "residency"),
    [
        *((2, CANCELLED[0]), (4, CANCELLED[1])),
        *(slow(step, each) for step in (1, 3, 5) for each in CANCELLED),
        *(slow(2, CANCELLED[1]), slow(4, CANCELLED[0])),
    ],
)
def test_cancelling_at_any_step(
    demo_model: Path, expected: dict[str, Tensor], stop_at: int, residency: Residency
) -> None:
    engine = Engine.open(demo_model, residency=residency, backend=SimulatedAccelerator())
    steps = iter(range(1, 100))
    with pytest.raises(Cancelled):
        engine.generate(
            small(),
            keep_frames=False,
            progress=lambda p: next(steps) if p.step else None,
            should_stop=lambda: steps.__length_hint__() == 99 - stop_at,
        )
    assert same(latents(engine), expected)


@pytest.mark.slow
def test_a_failed_device_is_begun_anew(demo_model: Path, expected: dict[str, Tensor]) -> None:
    accelerator = SimulatedAccelerator()
    engine = Engine.open(demo_model, residency=Residency("fused"), backend=accelerator)
    accelerator.fail("merge", after=7)
    with pytest.raises(DeviceFault):
        latents(engine)
    assert same(latents(engine), expected)
    engine.close()
    assert accelerator.device_bytes == 0
    assert accelerator.host_bytes == 0


class DyingAccelerator(SimulatedAccelerator):
    """After its first fault nothing works any more, as with CUDA."""

    dead = False

    def free(self, memory: Tensor) -> None:
        if self.dead:
            raise DeviceFault("an illegal address was used")
        super().free(memory)


@pytest.mark.slow
def test_a_device_that_does_not_recover_says_so(demo_model: Path) -> None:
    accelerator = DyingAccelerator()
    engine = Engine.open(demo_model, residency=Residency("fused"), backend=accelerator)
    accelerator.fail("merge", after=7)
    with pytest.raises(DeviceFault):
        latents(engine)
    accelerator.dead = True
    for _ in range(2):
        with pytest.raises(DeviceFault, match=r"start the process again \(an illegal address"):
            latents(engine)


@pytest.mark.slow
def test_memory_that_is_refused_can_be_had_later(
    demo_model: Path, expected: dict[str, Tensor]
) -> None:
    accelerator = SimulatedAccelerator()
    engine = Engine.open(demo_model, residency=Residency("fused"), backend=accelerator)
    accelerator.fail("allocate", after=5)
    with pytest.raises(OutOfMemory, match="no memory for"):
        latents(engine)
    assert same(latents(engine), expected)


@pytest.mark.slow
def test_weights_can_be_loaded_ahead(demo_model: Path) -> None:
    """What a server does at its start: then a request reads nothing and copies nothing in."""
    engine = Engine.open(demo_model, backend=SimulatedAccelerator())
    engine.load(small())
    counts = engine.generate(small(), keep_frames=False).trace.counts
    resident = {row.component: row for row in engine.residency() if row.where == "device"}
    assert resident.keys() == engine.source.components.keys()
    others = sum(
        each.nbytes for name, each in engine.source.components.items() if name != "transformer"
    )
    assert others <= counts["weights_bytes_in"] < others * 1.2  # vocoder: float32; and padding
    assert engine.generate(small(), keep_frames=False).trace.counts["weights_bytes_in"] == 0


@pytest.fixture(scope="module")
def refusing(demo_model: Path) -> Engine:
    return Engine.open(demo_model, residency=Residency("resident"))


class TestRefusals:
    @pytest.fixture(autouse=True)
    def _nothing_is_loaded(self, refusing: Engine) -> Iterator[None]:
        self.engine = refusing
        self.engine.configure(Residency("resident"))
        yield
        assert self.engine.residency() == []

    def test_a_budget_that_is_too_small(self) -> None:
        self.engine.configure(Residency(device_memory=25_000_000))
        with pytest.raises(BudgetError, match=r"more than the 25\.00 MB allowed\. This fits: Re"):
            latents(self.engine)

    def test_a_budget_that_nothing_fits(self) -> None:
        self.engine.configure(Residency(device_memory=1_000_000))
        with pytest.raises(BudgetError, match="The smallest plan, Residency"):
            latents(self.engine)

    def test_more_blocks_than_there_are(self) -> None:
        with pytest.raises(ResidencyError, match="5 resident blocks .* transformer has 4: give 0"):
            self.engine.configure(Residency("fused", resident_blocks=5))

    def test_a_component_that_does_not_exist(self) -> None:
        with pytest.raises(ResidencyError, match="no component 'vae' to place; there are"):
            self.engine.configure(Residency(places={"vae": "disk"}))

    def test_a_component_that_cannot_be_streamed(self) -> None:
        with pytest.raises(ResidencyError, match="video_vae cannot be streamed"):
            self.engine.configure(Residency(places={"video_vae": "streamed"}))


@pytest.mark.slow
def test_what_is_suggested_fits(demo_model: Path, expected: dict[str, Tensor]) -> None:
    """The plan that the refusal names is one that runs within the budget."""
    import argparse

    from entracte.cli.flags import add_settings, given_settings
    from entracte.config.generate import GenerateSettings
    from entracte.config.reading import read_settings
    from entracte.config.residency import build_residency
    from entracte.config.wording import worded

    limit = 20_000_000
    accelerator = SimulatedAccelerator(device_limit=limit)
    engine = Engine.open(demo_model, residency=Residency(device_memory=limit), backend=accelerator)
    with pytest.raises(BudgetError) as refused:
        latents(engine)
    suggested = worded(refused.value).split("This fits: ")[1].split()
    parser = argparse.ArgumentParser()
    add_settings(parser, GenerateSettings)
    options = parser.parse_args([*suggested, "--device-memory", str(limit)])
    given = given_settings(GenerateSettings, options)
    engine.configure(build_residency(read_settings(GenerateSettings, given)))
    assert same(latents(engine), expected)


def test_backends_are_backends() -> None:
    backends: list[Backend] = [HostBackend(), SimulatedAccelerator()]
    assert [backend.name for backend in backends] == ["host", "simulated"]


MEASURE = """
import re, sys
from pathlib import Path
from entracte.residency import *
import torch
from torch import nn
from entracte.checkpoints.safetensors_file import SafetensorsFile

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2048, 2048, bias=False) for _ in range(16))
    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x

def build():
    with torch.device("meta"):
        return Net().bfloat16()

file = SafetensorsFile(Path(sys.argv[1]))

class Source:
    specs = {name: TensorSpec(torch.bfloat16, each.shape) for name, each in file.tensors.items()}
    read = staticmethod(file.read)

source = Source()
backend = open_backend(torch.device("cpu"))
manager = DeviceManager([ComponentSpec("net", build, {"base": source}, "blocks")], backend,
                        Residency())
torch.zeros(1).bfloat16()
before = anonymous()
with manager.borrow("net", Net) as net:
    assert len(list(net.blocks)) == 16  # every block was waited for
    print(anonymous() - before, manager.plan([WeightPhase(BASE)]).device_bytes,
          manager.largest_unit)
"""


@pytest.mark.slow
def test_loading_takes_the_memory_of_the_plan_and_no_more(tmp_path: Path) -> None:
    """In a process of its own: float32 in the file, bfloat16 in memory."""
    import subprocess
    import sys

    weights = {f"blocks.{i}.weight": torch.randn(2048, 2048) for i in range(16)}
    save_file(weights, tmp_path / "net.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "net.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    taken, planned, largest = map(int, done.stdout.split())
    assert planned == 16 * 2048 * 2048 * 2 + 256  # nothing is outside the blocks
    assert planned <= taken <= planned + largest


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", ["plain", "fused", "auto"])
def test_every_mode_gives_the_same_bits_on_a_gpu(demo_model: Path, kernels: Kernels) -> None:
    with Engine.open(demo_model, device="cuda", kernels=kernels) as engine:
        expected = latents(engine)
        for residency in [*EXACT, *PLACED]:
            engine.configure(residency)
            for _ in range(2):
                assert same(latents(engine), expected), residency
        engine.configure(Residency("dynamic"))
        assert distance(latents(engine), expected) < 2e-2


@pytest.mark.gpu
def test_captured_graphs_keep_the_bits(demo_model: Path) -> None:
    made = []
    for kernels in ("fused", "auto"):
        with Engine.open(demo_model, device="cuda", kernels=kernels) as engine:
            made.append(latents(engine))
    assert same(*made)
