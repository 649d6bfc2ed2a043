"""What a plan lists, how tensors lie in memory, and how slots are filled."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from entracte.errors import ResidencyError
from entracte.residency import BASE, DeviceManager, Mode, Residency, TensorSpec, WeightPhase
from entracte.residency.backends.host import HostBackend
from entracte.residency.buffer import Buffer
from entracte.residency.buffer_key import STAGING, BlockWeights, BufferKey
from entracte.residency.layout import ALIGNMENT, lay_out
from entracte.residency.managed import ManagedComponent
from entracte.residency.plan import Plan, RankShare, Sizes, make_plan, spread
from entracte.residency.policy import ComponentPolicy, resolve_policy
from entracte.residency.prefetch import SlotRing
from entracte.residency.recorder import ComponentRecorder, Recorder
from entracte.residency.simulated import SimulatedAccelerator

from .toy import ADAPTERS, BLOCKS, ONE, PHASES, TWO, Net, build, make_manager, make_net, make_spec

N = 8
SIZES = Sizes(
    (*(1000 + unit for unit in range(N)), 300), {"one": (100,) * (N + 1), "other": (10,) * (N + 1)}
)


def plan(
    policy: ComponentPolicy, phases: tuple[WeightPhase, ...] = PHASES, unified: bool = False
) -> Plan:
    return make_plan("net", SIZES, phases, policy, unified)


def listed(a_plan: Plan, tier: str, role: str) -> dict[BufferKey, int]:
    return {
        buffer.key: buffer.nbytes
        for buffer in a_plan.buffers
        if (buffer.key.tier, buffer.key.role) == (tier, role)
    }


# Which blocks


@given(n=st.integers(0, 60), data=st.data())
def test_spread_takes_so_many_evenly(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))
    taken = spread(range(n), count)
    assert len(set(taken)) == len(taken) == count
    assert list(taken) == sorted(taken)
    assert set(taken) <= set(range(n))
    gaps = [after - before for before, after in pairwise(taken)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    if count:  # over the end and the beginning too, for sweeps follow each other
        around = taken[0] + n - taken[-1]
        assert n // count - 1 <= around <= n // count + 2


def test_what_is_outside_the_blocks_is_always_resident_and_kept() -> None:
    for m in (None, 0, 3, N):
        for k in (0, 3, N):
            found = plan(ComponentPolicy("fused", resident_blocks=m, merged_blocks=k))
            assert N in found.resident
            assert N in found.kept
            assert len(found.resident) == (N if m is None else m) + 1
            assert len(found.kept) == k + 1


def test_streamed_blocks_are_apart() -> None:
    assert sorted(plan(ComponentPolicy("fused", resident_blocks=4)).resident) == [0, 2, 4, 6, 8]


def test_blocks_that_would_stream_are_kept_first() -> None:
    found = plan(ComponentPolicy("fused", resident_blocks=4, merged_blocks=4))
    assert sorted(found.kept) == [1, 3, 5, 7, N]
    assert found.kept & found.resident == {N}
    found = plan(ComponentPolicy("fused", resident_blocks=4, merged_blocks=6))
    assert {1, 3, 5, 7} <= found.kept


# How many slots


@pytest.mark.parametrize(
    ("policy", "slots"),
    [
        (ComponentPolicy("resident"), 0),
        (ComponentPolicy("original"), 0),
        (ComponentPolicy("snapshot"), 0),
        (ComponentPolicy("snapshot", resident_blocks=3), 2),
        (ComponentPolicy("snapshot", resident_blocks=N - 1), 1),
        (ComponentPolicy("snapshot", resident_blocks=N), 0),
        (ComponentPolicy("dynamic", resident_blocks=3), 2),
        (ComponentPolicy("fused"), 2),
        (ComponentPolicy("fused", merged_blocks=N - 1), 1),
        (ComponentPolicy("fused", merged_blocks=N), 0),
        (ComponentPolicy("fused", resident_blocks=3), 3),  # a copy, a merge, and the block in use
        (ComponentPolicy("fused", resident_blocks=0, merged_blocks=N), 2),  # for the base alone
        (ComponentPolicy("original", resident_blocks=3), 3),
        (ComponentPolicy("original", resident_blocks=N - 2), 2),
    ],
)
def test_slots(policy: ComponentPolicy, slots: int) -> None:
    found = plan(policy)
    assert found.slots == slots
    assert list(listed(found, "device", "slot").values()) == [1007] * slots


# Which buffers


def test_resident_has_two_copies_and_nothing_of_the_host() -> None:
    found = plan(ComponentPolicy("resident"))
    copies = listed(found, "device", "weights")
    assert copies == {
        BufferKey("device", "weights", unit, copy): SIZES.units[unit]
        for copy in (0, 1)
        for unit in range(N + 1)
    }
    assert found.nbytes("host", "always", "run") == 0


def test_the_same_weights_in_two_phases_are_held_once() -> None:
    phases = (WeightPhase(BASE, 2), WeightPhase(BASE, 1))
    for mode in ("resident", "snapshot", "fused", "original", "dynamic"):
        found = plan(ComponentPolicy(mode), phases)
        assert found.nbytes("device", "always", "run", "phase") == sum(SIZES.units)


def test_low_vram_has_one_copy_of_the_blocks_on_the_device_and_both_on_the_host() -> None:
    found = plan(ComponentPolicy("snapshot"))
    blocks = [key.index for key in listed(found, "device", "weights") if key.index != N]
    assert blocks == list(range(N))
    assert found.nbytes("host", "always") == 2 * sum(SIZES.units)


def test_aggressive_has_a_second_copy_during_the_phases_only() -> None:
    found = plan(ComponentPolicy("snapshot", "aggressive"))
    assert found.nbytes("device", "always") == sum(SIZES.units)
    assert found.nbytes("device", "phase") == sum(SIZES.units)
    assert found.nbytes("host", "always") == sum(SIZES.units)


def test_fused_has_the_base_the_factors_the_kept_and_the_slots() -> None:
    found = plan(ComponentPolicy("fused", merged_blocks=2))
    kept = [1000 + unit for unit in sorted(found.kept - {N})] + [300]
    assert list(listed(found, "device", "kept").values()) == kept
    factors = sum(listed(found, "device", "factors").values())
    assert factors == sum(SIZES.factors["one"])
    everything = sum(SIZES.units) + sum(kept) + factors + 2 * 1007
    assert found.nbytes("device", "always", "run", "phase") == everything
    assert found.nbytes("host", "always", "run") == 0


def test_streamed_blocks_alone_are_on_the_host() -> None:
    found = plan(ComponentPolicy("fused", resident_blocks=3))
    streamed = set(range(N)) - found.resident
    assert {key.index for key in listed(found, "host", "weights")} == streamed
    assert {key.of for key in listed(found, "host", "weights")} == {BASE}


def test_from_files_nothing_plain_is_on_the_host_but_a_staging_buffer() -> None:
    for mode in ("original", "dynamic", "fused", "resident"):
        found = plan(ComponentPolicy(mode, resident_blocks=None, home="disk"))
        assert [buffer.key for buffer in found.buffers if buffer.key.tier == "host"] == [STAGING]
        assert (
            plan(ComponentPolicy(mode, home="disk"), unified=True).nbytes("host", "always", "run")
            == 0
        )


def test_staging_has_room_for_the_largest_factors() -> None:
    sizes = Sizes((100, 100, 100), {"one": (10, 5000, 10)})
    found = make_plan("net", sizes, PHASES, ComponentPolicy("fused", home="disk"), unified=False)
    assert listed(found, "host", "staging") == {STAGING: 5000}


def test_every_place_is_a_listed_buffer_of_the_units_size() -> None:
    phases = (*PHASES, WeightPhase(TWO, 1))
    for mode in ("resident", "original", "dynamic", "snapshot", "fused"):
        for policy in ("low-vram", "aggressive"):
            for m in (None, 0, 3):
                found = plan(ComponentPolicy(mode, policy, m), phases)
                sizes = {buffer.key: buffer.nbytes for buffer in found.buffers}
                assert len(sizes) == len(found.buffers)
                for places in found.places.values():
                    for unit, key in enumerate(places):
                        assert key is not None or (found.slots and unit < N)
                        assert key is None or sizes[key] == SIZES.units[unit]


@pytest.mark.parametrize("m", [0, 2, BLOCKS])
def test_a_plan_is_made_before_anything_is_read_or_allocated(m: int) -> None:
    backend = HostBackend()
    found = make_manager(backend, Residency("fused", resident_blocks=m)).plan(PHASES)
    assert found.device_bytes > 0
    assert (backend.device_bytes, backend.host_bytes) == (0, 0)


# UnitLayout


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(width))


class Attentions(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Attention(width) for _ in range(2))


def specs_of(module: nn.Module) -> Mapping[str, TensorSpec]:
    tensors = module.state_dict(keep_vars=True)
    return {name: TensorSpec(each.dtype, tuple(each.shape)) for name, each in tensors.items()}


def test_queries_keys_and_values_are_neighbours() -> None:
    """One matrix multiplication can serve all three."""
    module = Attentions().bfloat16()
    layout = lay_out(module, specs_of(module), "blocks")[1]
    memory = HostBackend().allocate(layout.nbytes)
    views = layout.views(memory)
    q, k, v = (views[f"blocks.1.to_{each}.weight"] for each in "qkv")
    assert k.data_ptr() == q.data_ptr() + q.nbytes
    assert v.data_ptr() == k.data_ptr() + k.nbytes
    together = torch.as_strided(q, (48, 16), (16, 1))
    q.fill_(1)
    k.fill_(2)
    v.fill_(3)
    assert together[:, 0].tolist() == [1] * 16 + [2] * 16 + [3] * 16


@given(widths=st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_tensors_are_aligned_and_share_no_byte(widths: list[int]) -> None:
    module = nn.ModuleList(nn.Linear(width, 3) for width in widths)
    (layout,) = lay_out(module, specs_of(module), None)
    assert layout.nbytes % ALIGNMENT == 0
    end = 0
    for entry in layout.entries:
        assert entry.start % ALIGNMENT == 0
        assert entry.start >= end
        end = entry.start + entry.nbytes
    assert end <= layout.nbytes
    assert sum(len(entry.names) for entry in layout.entries) == 2 * len(widths)


def test_tied_weights_are_one_entry() -> None:
    module = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    module[1].weight = module[0].weight
    specs = {name: spec for name, spec in specs_of(module).items() if name != "1.weight"}
    for each in (specs, specs_of(module)):
        (layout,) = lay_out(module, each, None)
        assert [set(entry.names) for entry in layout.entries if len(entry.names) > 1] == [
            {"0.weight", "1.weight"}
        ]
        assert layout.nbytes == 3 * ALIGNMENT


def test_weights_tied_across_blocks_are_refused() -> None:
    module = Attentions()
    module.blocks[1].to_q = module.blocks[0].to_q
    with pytest.raises(ResidencyError, match="blocks.0.to_q.weight and blocks.1.to_q.weight"):
        lay_out(module, specs_of(module), "blocks")


def test_a_parameter_that_no_source_holds_is_refused() -> None:
    module = Attentions()
    specs = {name: each for name, each in specs_of(module).items() if name != "blocks.0.gate"}
    with pytest.raises(ResidencyError, match=r"blocks\.0\.gate"):
        lay_out(module, specs, "blocks")


def test_blocks_must_be_a_list() -> None:
    with pytest.raises(ResidencyError, match="ModuleList"):
        lay_out(make_net(), specs_of(make_net()), "first")
    assert len(lay_out(build(), specs_of(build()), "blocks")) == BLOCKS + 1


# Slots


class Slots:
    """A ring over slots, and a record of what was filled."""

    def __init__(self, number: int) -> None:
        memory = torch.zeros(0)
        backend = SimulatedAccelerator()
        recorder = ComponentRecorder(Recorder(backend), "toy")
        keys = [BufferKey("device", "slot", each) for each in range(number)]
        buffers = [Buffer(key, memory, recorder) for key in keys]
        self.filled: list[BlockWeights] = []
        self.stream = backend.copies
        self.ring = SlotRing(buffers, self._fill)

    def _fill(self, buffer: Buffer, content: BlockWeights) -> None:
        assert buffer is not self.lent
        with buffer.writing(self.stream, content):
            self.filled.append(content)

    lent: Buffer | None = None

    def use(self, content: BlockWeights) -> None:
        self.lent = self.ring.take(content)
        assert self.lent.content == content
        self.ring.give_back()
        self.lent = None
        self.ring.advance()


def contents(*units: int) -> list[BlockWeights]:
    return [BlockWeights(unit, BASE) for unit in units]


@given(
    number=st.integers(1, 4),
    units=st.lists(st.integers(0, 5), max_size=30),
    ahead=st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_a_slot_holds_what_is_taken_and_what_is_ahead_stays(
    number: int, units: list[int], ahead: list[bool]
) -> None:
    slots, upcoming = Slots(number), contents(*units)
    slots.ring.expect(upcoming)
    for position, content in enumerate(upcoming):
        if ahead[position]:
            slots.ring.advance()
        slots.lent = buffer = slots.ring.take(content)
        assert buffer.content == content
        if ahead[position]:
            slots.ring.advance()  # while it is lent: into other slots only
        assert buffer.content == content
        slots.ring.give_back()
        slots.lent = None
        slots.ring.advance()
        for expected, slot in slots.ring._ahead:
            assert slot.content == expected
    # Each is filled when it comes, and not before something else has taken its place.
    assert len(slots.filled) <= len(upcoming)


def test_slots_are_filled_in_order_and_ahead() -> None:
    slots = Slots(2)
    slots.ring.expect(contents(0, 1, 2, 3))
    slots.ring.advance()
    assert slots.filled == contents(0, 1)
    slots.use(BlockWeights(0, BASE))
    assert slots.filled == contents(0, 1, 2)
    for unit in (1, 2, 3):
        slots.use(BlockWeights(unit, BASE))
    assert slots.filled == contents(0, 1, 2, 3)


def test_what_fits_the_slots_is_not_filled_again() -> None:
    slots = Slots(3)
    sweep = contents(0, 1, 2)
    for _ in range(3):
        slots.ring.expect(sweep * 4)
        slots.ring.advance()
        for content in sweep * 4:
            slots.use(content)
    assert slots.filled == sweep


def test_what_was_brought_for_the_next_request_is_used() -> None:
    slots = Slots(2)
    slots.ring.expect(contents(0, 1, 2, 0, 1))
    for unit in (0, 1, 2):
        slots.use(BlockWeights(unit, BASE))
    filled = len(slots.filled)
    slots.ring.expect(contents(0, 1))
    slots.ring.advance()
    assert len(slots.filled) == filled


def test_blocks_out_of_order_are_refused() -> None:
    slots = Slots(2)
    slots.ring.expect(contents(0, 1))
    with pytest.raises(RuntimeError, match="to come"):
        slots.ring.take(BlockWeights(1, BASE))
    assert BlockWeights(0, BASE) != BlockWeights(0, ONE)


def test_a_request_is_planned_once_for_all_components(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[str] = []
    make = ManagedComponent.make_plan

    def counted(
        it: ManagedComponent, phases: tuple[WeightPhase, ...], policy: ComponentPolicy
    ) -> Plan:
        planned.append(it.name)
        return make(it, phases, policy)

    monkeypatch.setattr(ManagedComponent, "make_plan", counted)
    specs = [make_spec(), replace(make_spec(), name="other")]
    manager = DeviceManager(specs, HostBackend(), Residency("fused"), adapters=ADAPTERS)
    assert planned == []  # a configuration is checked without phases
    plan = manager.plan(PHASES)
    with manager.execute(plan) as run, run.phase(0, Net):
        for _ in range(2):
            with manager.borrow("other", Net):
                pass
    assert planned == ["net", "other"]


def test_a_plan_for_another_residency_is_refused() -> None:
    manager = make_manager(HostBackend(), Residency("fused"))
    plan = manager.plan(PHASES)
    manager.configure(Residency("resident"))
    with pytest.raises(ResidencyError, match="made for another residency"), manager.execute(plan):
        pass


# Several devices


@pytest.mark.parametrize("mode", ["resident", "fused", "dynamic"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_peers_keep_every_block_once(mode: Mode, ranks: int) -> None:
    policy = ComponentPolicy(mode, home="peer")
    plans = [
        make_plan("net", SIZES, PHASES, policy, False, RankShare(rank, ranks))
        for rank in range(ranks)
    ]
    kept = [block for plan in plans for block in range(N) if block in plan.resident]
    assert sorted(kept) == list(range(N))
    for rank, plan in enumerate(plans):
        assert N in plan.resident
        assert plan.copied_from == {
            block: block % ranks for block in range(N) if block % ranks != rank
        }
        assert plan.slots >= 2
        assert not any(buffer.key.tier == "host" for buffer in plan.buffers)


def test_one_device_has_no_peers() -> None:
    with pytest.raises(ResidencyError, match="there is one device"):
        make_plan("net", SIZES, PHASES, ComponentPolicy(home="peer"), False)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Residency("snapshot", places={"net": "peer"}), "mode snapshot replaces weights"),
        (Residency("fused", resident_blocks=2, places={"net": "peer"}), "leave resident_blocks"),
    ],
)
def test_what_peers_cannot_hold(wanted: Residency, says: str) -> None:
    with pytest.raises(ResidencyError, match=says):
        resolve_policy("net", True, wanted)
