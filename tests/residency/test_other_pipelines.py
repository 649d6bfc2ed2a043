"""The device manager with pipelines that are not Entracte's: two experts, and diffusers' Wan."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor, nn

import entracte.residency
from entracte.errors import ResidencyError
from entracte.residency import (
    BASE,
    Adapter,
    Backend,
    ComponentSpec,
    DeviceManager,
    Factors,
    Residency,
    TensorSource,
    WeightPhase,
    WeightSet,
    in_memory,
)
from entracte.residency.backends.host import HostBackend
from entracte.residency.merge import merge
from entracte.residency.simulated import NotLent, SimulatedAccelerator

from .toy import BLOCKS, Net, build, make_net

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "device-manager.md"
PACKAGE = Path(entracte.residency.__file__).parent

HIGH, LOW = WeightSet(source="high"), WeightSet(source="low")
EXPERTS = (WeightPhase(HIGH, 3), WeightPhase(LOW, 2))

backends = pytest.mark.parametrize("backend", [HostBackend, SimulatedAccelerator])
# Where there are many ways: the simulated accelerator checks more.
mostly_simulated = pytest.mark.parametrize(
    "backend", [pytest.param(HostBackend, marks=pytest.mark.slow), SimulatedAccelerator]
)


def residencies(some: int) -> list[Residency]:
    """Every way to hold two sources; `some` is a number of blocks."""
    snapshots = [
        Residency("snapshot", policy, resident_blocks=m)
        for policy in ("low-vram", "aggressive")
        for m in (None, 0, 1, some)
    ]
    from_files = Residency("snapshot", resident_blocks=1, places={"net": "disk"})
    return [Residency("resident"), *snapshots, from_files]


def name_of(wanted: Residency) -> str:
    m = "all" if wanted.resident_blocks is None else wanted.resident_blocks
    return f"{wanted.mode}-{wanted.snapshot_policy}-{m}{'-disk' if wanted.places else ''}"


def two_sources(high: nn.Module, low: nn.Module) -> dict[str, TensorSource]:
    return {"high": TensorSource(high.state_dict()), "low": TensorSource(low.state_dict())}


# The documentation


def test_the_code_of_the_documentation_runs() -> None:
    text = DOCS.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    assert len(blocks) == text.count("```") // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        namespace: dict[str, object] = {}
        for block in blocks:
            lines_before = text.count("\n", 0, block.start(1))
            exec(compile("\n" * lines_before + block[1], DOCS, "exec"), namespace)


# Two experts of one shape


def two_experts(backend: Backend, wanted: Residency) -> DeviceManager:
    sources = two_sources(make_net(1), make_net(2))
    return DeviceManager([ComponentSpec("net", build, sources, "blocks")], backend, wanted)


def start() -> Tensor:
    return torch.linspace(-1, 1, 16).view(2, 8).bfloat16()


@torch.inference_mode()
def denoise(manager: DeviceManager, phases: tuple[WeightPhase, ...] = EXPERTS) -> Tensor:
    x = start()
    with manager.request(phases) as run:
        for index, phase in enumerate(phases):
            with run.phase(index, Net) as net:
                for _ in range(phase.sweeps):
                    x = x - net(x) / 8
    return x


@torch.inference_mode()
def denoise_plainly(phases: tuple[WeightPhase, ...] = EXPERTS) -> Tensor:
    experts = {HIGH: make_net(1), LOW: make_net(2)}
    x = start()
    for phase in phases:
        for _ in range(phase.sweeps):
            x = x - experts[phase.weights](x) / 8
    return x


@pytest.mark.sampled(5)
@mostly_simulated
@pytest.mark.parametrize("wanted", residencies(BLOCKS // 2), ids=name_of)
def test_experts_compute_what_the_plain_modules_do(
    backend: Callable[[], Backend], wanted: Residency
) -> None:
    expected = denoise_plainly()
    assert not torch.equal(expected, denoise_plainly((WeightPhase(HIGH, 5),)))
    manager = two_experts(backend(), wanted)
    for _ in range(3):
        assert torch.equal(denoise(manager), expected)


@pytest.mark.sampled(5)
@mostly_simulated
@pytest.mark.parametrize("wanted", residencies(BLOCKS // 2), ids=name_of)
def test_experts_may_take_turns(backend: Callable[[], Backend], wanted: Residency) -> None:
    turns = (WeightPhase(HIGH, 1), WeightPhase(LOW, 1), WeightPhase(HIGH, 2), WeightPhase(LOW, 1))
    manager = two_experts(backend(), wanted)
    for phases in (turns, turns[1:2], EXPERTS, turns):
        assert torch.equal(denoise(manager, phases), denoise_plainly(phases))


@backends
def test_a_manager_may_change_its_way_between_requests(backend: Callable[[], Backend]) -> None:
    manager, expected = two_experts(backend(), Residency()), denoise_plainly()
    for wanted in residencies(2) + residencies(BLOCKS - 1)[::-1]:
        manager.configure(wanted)
        assert torch.equal(denoise(manager), expected), name_of(wanted)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("wanted", residencies(BLOCKS // 2), ids=name_of)
def test_experts_take_what_the_plan_says(wanted: Residency) -> None:
    device = SimulatedAccelerator()
    manager = two_experts(device, wanted)
    denoise(manager)
    denoise(manager)
    plan = manager.plan(EXPERTS)
    assert device.peak_device_bytes == plan.device_bytes
    assert device.host_bytes == plan.host_bytes


@pytest.mark.parametrize("before", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("after", [torch.inference_mode, torch.no_grad])
def test_inference_mode_of_one_request_is_no_matter_to_the_next(
    before: Callable[[], Any], after: Callable[[], Any]
) -> None:
    layer = nn.Linear(2, 2)
    spec = ComponentSpec(
        "it", lambda: nn.Linear(2, 2, device="meta"), {"it": TensorSource(layer.state_dict())}
    )
    x = torch.ones(1, 2)
    with DeviceManager([spec], HostBackend(), Residency()) as manager:
        for mode in (before, after):
            with mode(), manager.borrow("it", nn.Linear) as borrowed:
                assert torch.equal(borrowed(x), layer(x))
            manager.release()


@pytest.mark.parametrize("mode", ["original", "dynamic", "fused"])
def test_modes_for_one_base_refuse_two_experts(mode: str) -> None:
    manager = two_experts(HostBackend(), Residency(mode))
    with pytest.raises(ResidencyError, match=f"mode {mode} .* net has high and low: .*snapshot or"):
        denoise(manager)
    manager.configure(Residency("snapshot"))
    assert torch.equal(denoise(manager), denoise_plainly())


@pytest.mark.sampled(5)
@mostly_simulated
@pytest.mark.parametrize("wanted", residencies(BLOCKS // 2), ids=name_of)
def test_after_a_cancelled_request_the_next_is_right(
    backend: Callable[[], Backend], wanted: Residency
) -> None:
    manager = two_experts(backend(), wanted)
    for stop_at in (1, 2 * BLOCKS + 3, 3 * BLOCKS + 1, 4 * BLOCKS + 2):
        with pytest.raises(KeyboardInterrupt):
            interrupt(manager, stop_at)
        assert torch.equal(denoise(manager), denoise_plainly())


@torch.inference_mode()
def interrupt(manager: DeviceManager, stop_at: int) -> None:
    """A request that is left at a block, counted over all sweeps."""
    with manager.request(EXPERTS) as run:
        for index, phase in enumerate(EXPERTS):
            with run.phase(index, Net) as net:
                for _ in range(phase.sweeps):
                    for block in net.blocks:
                        block(start())
                        stop_at -= 1
                        if not stop_at:
                            raise KeyboardInterrupt


def test_an_expert_that_is_kept_over_the_boundary_is_found() -> None:
    manager = two_experts(SimulatedAccelerator(), Residency())
    with torch.inference_mode(), manager.request(EXPERTS) as run:
        with run.phase(0, Net) as kept:
            kept(start())
        with run.phase(1, Net) as net, pytest.raises(NotLent):
            net.last(kept.first(start()))


# diffusers' Wan, as in Wan 2.2: an expert for high noise and one for low noise

SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 4,
    "rope_max_seq_len": 32,
}
TIMESTEPS, BOUNDARY = (999, 930, 840, 600, 200), 875


def build_wan() -> WanTransformer3DModel:
    """Without weights; the rotary tables are in no checkpoint, so they are real."""
    with torch.device("meta"):
        wan = WanTransformer3DModel(**SIZES)
    its = wan.config
    wan.rope = WanRotaryPosEmbed(its.attention_head_dim, its.patch_size, its.rope_max_seq_len)
    return wan


def make_wan(seed: int) -> WanTransformer3DModel:
    """In bfloat16, but for what diffusers keeps in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wan = WanTransformer3DModel(**SIZES).eval().requires_grad_(False)
    for name, parameter in wan.named_parameters():
        if not set(name.split(".")) & set(wan._keep_in_fp32_modules):
            parameter.data = parameter.data.bfloat16()
    return wan


def step(wan: WanTransformer3DModel, latents: Tensor, timestep: int) -> Tensor:
    """One Euler step of sorts, with guidance: two sweeps."""
    generator = torch.Generator().manual_seed(6)
    prompt, none = torch.randn(2, 1, 5, 16, generator=generator).bfloat16()
    t = torch.tensor([timestep])
    conditioned = wan(latents, t, prompt, return_dict=False)[0]
    unconditioned = wan(latents, t, none, return_dict=False)[0]
    return latents - (unconditioned + 3 * (conditioned - unconditioned)) / 8


def noise() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, 4, 3, 4, 6, generator=generator).bfloat16()


@torch.inference_mode()
def make_video(manager: DeviceManager, first: WeightSet, second: WeightSet) -> Tensor:
    latents = noise()
    parts = (
        (first, [t for t in TIMESTEPS if t >= BOUNDARY]),
        (second, [t for t in TIMESTEPS if t < BOUNDARY]),
    )
    phases = [WeightPhase(weights, 2 * len(timesteps)) for weights, timesteps in parts]
    with manager.request(phases) as run:
        for index, (_, timesteps) in enumerate(parts):
            with run.phase(index, WanTransformer3DModel) as wan:
                for t in timesteps:
                    latents = step(wan, latents, t)
    return latents


@torch.inference_mode()
def make_video_plainly(first: WanTransformer3DModel, second: WanTransformer3DModel) -> Tensor:
    latents = noise()
    for t in TIMESTEPS:
        latents = step(first if t >= BOUNDARY else second, latents, t)
    return latents


WAN_RESIDENCIES = [
    Residency("resident"),
    Residency("snapshot", "low-vram"),
    Residency("snapshot", "aggressive"),
    Residency("snapshot", "low-vram", resident_blocks=0),
    Residency("snapshot", "aggressive", resident_blocks=2),
]


@pytest.mark.sampled(3)
@mostly_simulated
@pytest.mark.parametrize("wanted", WAN_RESIDENCIES, ids=name_of)
def test_two_wan_experts_compute_what_the_plain_ones_do(
    backend: Callable[[], Backend], wanted: Residency
) -> None:
    high, low = make_wan(1), make_wan(2)
    expected = make_video_plainly(high, low)
    assert expected.isfinite().all()
    assert not torch.equal(expected, make_video_plainly(high, high))
    spec = ComponentSpec("transformer", build_wan, two_sources(high, low), "blocks")
    manager = DeviceManager([spec], backend(), wanted)
    for _ in range(3):
        assert torch.equal(make_video(manager, HIGH, LOW), expected)


def wan_factors(name: str) -> Mapping[str, Factors]:
    """A LoRA of the attention and feed-forward linears of all blocks, as they come, and of one
    linear outside them.
    """
    generator = torch.Generator().manual_seed(len(name))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    return {
        f"{module_name}.weight": Factors(
            random(4, linear.in_features), random(linear.out_features, 4), scale=1 / 16
        )
        for module_name, linear in build_wan().named_modules()
        if isinstance(linear, nn.Linear)
        and (module_name.startswith("blocks.") or module_name == "proj_out")
    }


@pytest.mark.slow
@backends
def test_a_lora_on_wan_gives_the_same_bits_in_all_modes(backend: Callable[[], Backend]) -> None:
    detail = WeightSet((Adapter("detail", 0.8),))
    base, merged = make_wan(1), make_wan(1)
    for name, factors in wan_factors("detail").items():
        merge(base.get_parameter(name), [(factors, 0.8)], out=merged.get_parameter(name))
    expected = make_video_plainly(base, merged)
    assert not torch.equal(expected, make_video_plainly(base, base))
    sources = {"base": TensorSource(base.state_dict())}
    spec = ComponentSpec("transformer", build_wan, sources, "blocks")
    manager = DeviceManager([spec], backend(), Residency(), adapters=in_memory(wan_factors))
    for wanted in (
        Residency("resident"),
        Residency("fused"),
        Residency("fused", resident_blocks=1, merged_blocks=2),
        Residency("original"),
        Residency("snapshot", resident_blocks=2),
    ):
        manager.configure(wanted)
        for _ in range(2):
            assert torch.equal(make_video(manager, BASE, detail), expected), wanted.mode


# What the package needs


def test_the_package_imports_of_entracte_its_errors_and_units_only() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 20
    for path in files:
        for name in imported(path):
            parts = name.split(".")
            allowed = parts[1:2] in (["errors"], ["residency"], ["units"])
            assert parts[0] != "entracte" or allowed, f"{path.relative_to(PACKAGE)} imports {name}"


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules that a file of the package imports."""
    package = ["entracte", "residency", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            # `from .. import x` and `from entracte import x` import the module x.
            for alias in node.names:
                yield ".".join([*module, alias.name])
