"""Closed forms of memory equal what the device manager's own plan adds up."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entracte.planner.candidates import Way
from entracte.planner.footprint import Weights, loaned_footprint, transformer_footprint
from entracte.residency import BASE, Adapter, WeightPhase, WeightSet
from entracte.residency.plan import Plan, Sizes, make_plan
from entracte.residency.policy import ComponentPolicy, Place, Residency, resolve_policy

STYLE, DISTILLED = Adapter("style", 0.5), Adapter("distilled", 1.0)
SETS = {
    "base only": (BASE,),
    "base and merged": (BASE, WeightSet((DISTILLED,))),
    "merged only": (WeightSet((STYLE,)),),
    "two merged": (WeightSet((STYLE,)), WeightSet((STYLE, DISTILLED))),
}


def check(plan: Plan, device: tuple[int, int, int, int], host: int) -> None:
    found = tuple(
        plan.nbytes("device", lifetime) for lifetime in ("always", "run", "phase", "prepare")
    )
    assert found == device
    assert plan.nbytes("host", "always", "run") == host


@st.composite
def ways(draw: st.DrawFn) -> tuple[Way, int]:
    blocks = draw(st.integers(1, 9))
    mode = draw(st.sampled_from(["original", "dynamic", "snapshot", "fused", "resident"]))
    m = blocks if mode == "resident" else draw(st.integers(0, blocks))
    k = draw(st.integers(0, blocks)) if mode == "fused" else 0
    policy = draw(st.sampled_from(["low-vram", "aggressive"]))
    home = "host" if mode == "resident" else draw(st.sampled_from(["host", "disk"]))
    return Way(mode, policy, m, k, home), blocks


@given(ways(), st.sampled_from(sorted(SETS)), st.booleans())
def test_the_transformers(way_of: tuple[Way, int], sets: str, unified: bool) -> None:
    way, blocks = way_of
    used = SETS[sets]
    names = list(dict.fromkeys(a.name for each in used for a in each.adapters))
    units = (*[1024] * blocks, 640)
    factors = {"style": (*[64] * blocks, 32), "distilled": (*[96] * blocks, 128)}
    wanted = way.residency({}, Residency())
    plan = make_plan(
        "transformer",
        Sizes(units, {name: factors[name] for name in names}),
        tuple(WeightPhase(each) for each in used),
        resolve_policy("transformer", True, wanted),
        unified,
    )
    weights = Weights.of(units, [factors[name] for name in names])
    adapted = sum(1 for each in used if each.adapters)
    found = transformer_footprint(weights, adapted < len(used), adapted, way, unified)
    check(plan, (found.always, found.run, found.phases, found.prepare), found.host)


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize("blocks", [0, 1, 2, 5])
@pytest.mark.parametrize("place", get_args(Place))
def test_the_others(place: Place, blocks: int, unified: bool) -> None:
    if place == "streamed" and not blocks:
        return
    units = (*[1024] * blocks, 640)
    policy: ComponentPolicy = resolve_policy("vae", False, Residency(places={"vae": place}))
    plan = make_plan("vae", Sizes(units, {}), (WeightPhase(BASE),), policy, unified)
    found = loaned_footprint(Weights.of(units), place, unified)
    check(plan, (found.always, found.run, found.phases, found.prepare), found.host)
