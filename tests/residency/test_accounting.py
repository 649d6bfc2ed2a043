"""Every byte is where the plan says: memory, traffic and reads, counted exactly.

The module has all tensors of the full-size transformer's blocks, with every side divided.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from benchmarks.scaled_model import (
    BLOCKS,
    MERGED,
    SCALE,
    Card,
    Simulation,
    Skeleton,
    skeleton_factors,
    skeleton_spec,
    tensor_shapes,
)
from benchmarks.scaled_model import PHASES as FULL_PHASES
from torch import Tensor

from entracte.residency import (
    BASE,
    ComponentSpec,
    DeviceManager,
    Factors,
    Residency,
    TensorSpec,
    WeightPhase,
    WeightSource,
    in_memory,
)
from entracte.residency.simulated import SimulatedAccelerator

N = 4
PHASES = (WeightPhase(BASE, 3), WeightPhase(MERGED, 2))
CONFIGURATIONS = (
    Residency("original"),
    Residency("original", resident_blocks=2),
    Residency("original", places={"transformer": "disk"}),
    Residency("dynamic"),
    Residency("dynamic", resident_blocks=1),
    Residency("snapshot"),
    Residency("snapshot", resident_blocks=2),
    Residency("snapshot", resident_blocks=0),
    Residency("snapshot", snapshot_policy="aggressive"),
    Residency("snapshot", snapshot_policy="aggressive", resident_blocks=2),
    *(Residency("fused", merged_blocks=k) for k in (0, 2, N)),
    *(Residency("fused", resident_blocks=m, merged_blocks=k) for m, k in ((2, 0), (2, 3), (0, 1))),
    Residency("fused", resident_blocks=2, places={"transformer": "disk"}),
    Residency("resident"),
)


def named(wanted: Residency) -> str:
    policy = wanted.snapshot_policy if wanted.mode == "snapshot" else ""
    m, k = wanted.resident_blocks, wanted.merged_blocks
    parts = [wanted.mode, policy, "" if m is None else f"m{m}", "" if k is None else f"k{k}"]
    return " ".join([*filter(None, parts), *wanted.places.values()])


class CountingSource:
    """Counts how often every tensor is read."""

    def __init__(self, source: WeightSource) -> None:
        self.specs = source.specs
        self.reads: Counter[str] = Counter()
        self._source = source

    def read(self, name: str, out: Tensor) -> None:
        self.reads[name] += 1
        self._source.read(name, out)


@cache
def parts() -> tuple[ComponentSpec, dict[str, Factors]]:
    return skeleton_spec(N), skeleton_factors(N)


@dataclass(frozen=True)
class Bench:
    manager: DeviceManager
    accelerator: SimulatedAccelerator
    source: CountingSource

    @torch.inference_mode()
    def request(self) -> Mapping[str, int]:
        """Perform one; returns what it moved and merged."""
        traffic = self.accelerator.traffic
        before = (traffic.bytes_in, traffic.bytes_out, traffic.merges)
        with self.manager.request(PHASES) as run:
            for index, phase in enumerate(PHASES):
                with run.phase(index, Skeleton) as module:
                    for _ in range(phase.sweeps):
                        module(torch.zeros((), dtype=torch.bfloat16))
        after = (traffic.bytes_in, traffic.bytes_out, traffic.merges)
        moved = [now - then for now, then in zip(after, before, strict=True)]
        return dict(zip(("in", "out", "merges"), moved, strict=True))

    @property
    def device_bytes(self) -> int:
        return self.manager.plan(PHASES).device_bytes

    @property
    def host_bytes(self) -> int:
        return self.manager.plan(PHASES).host_bytes


def bench(wanted: Residency) -> Bench:
    spec, factors = parts()
    source = CountingSource(spec.sources["base"])
    spec = ComponentSpec(spec.name, spec.build, {"base": source}, spec.blocks)
    accelerator = SimulatedAccelerator()
    manager = DeviceManager([spec], accelerator, wanted, adapters=in_memory(lambda _: factors))
    return Bench(manager, accelerator, source)


def unit_bytes() -> tuple[int, int]:
    """Of a block and of the rest, with every tensor at a multiple of 256 bytes."""
    spec, _ = parts()
    sums: Counter[bool] = Counter()
    for name, each in spec.sources["base"].specs.items():
        sums[name.startswith("transformer_blocks.0.")] += -(-each.nbytes // 256) * 256
    others = sum(
        -(-each.nbytes // 256) * 256
        for name, each in spec.sources["base"].specs.items()
        if name.startswith("transformer_blocks.") and ".0." not in name[:22]
    )
    return sums[True], sums[False] - others


BLOCK, REST = unit_bytes()
ONE_SET = N * BLOCK + REST
LINEARS_IN_BLOCK = 34


def streamed(m: int) -> int:
    """Bytes in a request: the blocks that are not resident, in every sweep.

    What is still in a slot when it is needed again is not copied again.
    """
    return (N - m) * BLOCK * sum(phase.sweeps for phase in PHASES)


@cache
def performed(number: int) -> tuple[Bench, int, Mapping[str, int]]:
    """Two requests: the peak of host memory in the first, and the traffic of the second."""
    it = bench(CONFIGURATIONS[number])
    assert (it.accelerator.device_bytes, it.accelerator.peak_host_bytes) == (0, 0)
    it.request()
    return it, it.accelerator.peak_host_bytes, it.request()


each_configuration = pytest.mark.parametrize(
    "number", range(len(CONFIGURATIONS)), ids=map(named, CONFIGURATIONS)
)


@pytest.mark.sampled(3)
@each_configuration
def test_memory_is_what_the_plan_says(number: int) -> None:
    """At the peak, while loading, and after; and nothing is copied out once it is loaded."""
    it, peak_while_loading, second = performed(number)
    assert peak_while_loading <= it.host_bytes + max(BLOCK, REST)
    assert it.accelerator.peak_device_bytes == it.device_bytes
    assert it.accelerator.host_bytes == it.host_bytes
    assert it.accelerator.pinned_bytes == it.host_bytes
    assert second["out"] == 0
    rows = it.manager.residency()
    for where, nbytes in (
        ("device", it.accelerator.device_bytes),
        ("pinned", it.accelerator.host_bytes),
    ):
        assert sum(row.nbytes for row in rows if row.where == where) == nbytes


@pytest.mark.sampled(2)
@each_configuration
def test_files_are_read_once(number: int) -> None:
    """But in place `disk`, where what streams is read as it streams."""
    it, _, _ = performed(number)
    assert set(it.source.reads) == set(it.source.specs)
    if "disk" not in CONFIGURATIONS[number].places.values():
        assert set(it.source.reads.values()) == {1}


@torch.inference_mode()
def test_the_base_is_read_once_where_no_phase_uses_it_plain() -> None:
    it = bench(Residency("fused"))
    for _ in range(2):
        with it.manager.request((WeightPhase(MERGED, 2),)) as run, run.phase(0, Skeleton) as module:
            for _ in range(2):
                module(torch.zeros((), dtype=torch.bfloat16))
    assert set(it.source.reads.values()) == {1}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "nbytes", "merges"),
    [
        ("resident", 0, 0),
        ("fused k0", 0, 2 * N * LINEARS_IN_BLOCK),
        ("fused k2", 0, 0),  # two blocks that are not kept merged stay in the two slots
        (f"fused k{N}", 0, 0),
        ("snapshot low-vram", 2 * N * BLOCK, 0),
        ("snapshot aggressive", ONE_SET, 0),
        ("dynamic", 0, 0),
    ],
)
def test_a_request_moves_only_what_its_mode_must(name: str, nbytes: int, merges: int) -> None:
    _, _, second = performed([named(wanted) for wanted in CONFIGURATIONS].index(name))
    assert second == {"in": nbytes, "out": 0, "merges": merges}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("m", "slots"), [(1, 3), (0, 3)])
def test_streaming_moves_what_streams(m: int, slots: int) -> None:
    """Every streamed block once a sweep, but for those that a slot still holds."""
    it = bench(Residency("fused", resident_blocks=m))
    it.request()
    moved = it.request()["in"]
    sweeps = sum(phase.sweeps for phase in PHASES)
    assert streamed(m) - slots * BLOCK * sweeps <= moved <= streamed(m) + slots * BLOCK
    assert moved % BLOCK == 0


@pytest.mark.slow
def test_another_mode_reads_nothing_again() -> None:
    """What is in memory is moved. Every mode follows every other here at least once."""
    modes = (
        Residency("snapshot"),
        Residency("fused"),
        Residency("resident"),
        Residency("snapshot", snapshot_policy="aggressive"),
        Residency("fused", resident_blocks=1, merged_blocks=2),
        Residency("original"),
        Residency("fused", resident_blocks=0),
        Residency("dynamic"),
        Residency("snapshot", resident_blocks=2),
        Residency("resident"),
    )
    it = bench(modes[0])
    it.request()
    read_again = {}
    for before, wanted in pairwise(modes):
        it.source.reads.clear()
        it.manager.configure(wanted)
        it.request()
        if it.source.reads:
            read_again[f"{named(before)} -> {named(wanted)}"] = len(it.source.reads)
    assert not read_again


class Shapes:
    """A source that cannot be read: a plan needs none."""

    def __init__(self) -> None:
        self.specs = {n: TensorSpec(torch.bfloat16, s) for n, s in tensor_shapes().items()}

    def read(self, name: str, out: Tensor) -> None:
        raise AssertionError("a plan reads no weights")


class FullSize(Skeleton):
    def __init__(self) -> None:
        super().__init__(divisor=10**9)
        for name, shape in tensor_shapes().items():
            path, _, leaf = name.rpartition(".")
            empty = torch.nn.Parameter(torch.empty(shape), requires_grad=False)
            self.get_submodule(path).register_parameter(leaf, empty)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("wanted", "gigabytes"),
    [
        (Residency("resident"), 76.3),
        (Residency("fused"), 48.0),
        (Residency("fused", merged_blocks=24), 66.5),
        (Residency("fused", resident_blocks=0), 11.6),
        (Residency("snapshot"), 39.1),
    ],
    ids=lambda value: named(value) if isinstance(value, Residency) else "",
)
def test_the_plan_of_the_full_size(
    full_size_manager: DeviceManager, wanted: Residency, gigabytes: float
) -> None:
    """In gigabytes; the scaled model of the benchmarks has the same, scaled."""
    full_size_manager.configure(wanted)
    nbytes = full_size_manager.plan(FULL_PHASES).device_bytes
    assert nbytes / 1e9 == pytest.approx(gigabytes, abs=0.1)
    card = Card("any", 0, 1e12, 1e12, 1e12)
    scaled = Simulation(card, wanted, (1, 1), BLOCKS).manager.plan(FULL_PHASES).device_bytes
    assert scaled * SCALE == pytest.approx(nbytes, rel=2e-3)


@pytest.fixture(scope="module")
def full_size_manager() -> DeviceManager:
    def build() -> FullSize:
        with torch.device("meta"):
            return FullSize().bfloat16()

    def factors(_: str) -> dict[str, Factors]:
        found = {}
        with torch.device("meta"):
            for name, shape in tensor_shapes().items():
                if len(shape) == 2 and name.endswith(".weight"):
                    rank = min(384, *shape)
                    found[name] = Factors(
                        torch.empty(rank, shape[1], dtype=torch.bfloat16),
                        torch.empty(shape[0], rank, dtype=torch.bfloat16),
                    )
        return found

    spec = ComponentSpec("transformer", build, {"base": Shapes()}, "transformer_blocks")
    return DeviceManager([spec], SimulatedAccelerator(), Residency(), adapters=in_memory(factors))
