"""Making weight sets before a request needs them: copies on the host, premerged ones anywhere."""

from .buffer import STAGING, Arena, ArenaKey, Content
from .fill import Filler
from .plan import Plan
from .pool import Stores
from .weights import WeightSet, distinct


def prepare(plan: Plan, stores: Stores, filler: Filler) -> None:
    """Make what the plan keeps ready and is not there yet. Nothing is made twice."""
    host = [
        (stores[planned.key], content)
        for planned in plan.arenas
        if planned.key.tier == "host" and planned.key != STAGING
        for content in [_host_content(planned.key)]
    ]
    missing = [(arena, content) for arena, content in host if arena.content != content]
    for arena, content in missing:
        if content.adapter is not None:
            filler.fill_factors(arena, content)
        elif content.weights is not None and not content.weights.adapters:
            filler.fill_host(arena, content, arena)
    for arena, content in missing:
        if content.weights is not None and content.weights.adapters:
            _keep_base(plan, stores, filler, content.base)
            filler.fill_host(arena, content, _made_in(plan, stores, content))
    if plan.holding.mode == "resident":
        _premerge(plan, stores, filler)


def save_plain(stores: Stores, filler: Filler) -> None:
    """Copy to new host arenas what the device has of them."""
    for arena in stores:
        if arena.key.tier == "host" and arena.key.role == "weights":
            content = _host_content(arena.key)
            if arena.content != content and stores.holding(content) is not None:
                filler.fill_host(arena, content, arena)


def _host_content(key: ArenaKey) -> Content:
    if isinstance(key.of, WeightSet):
        return Content(key.index, key.of)
    return Content(key.index, adapter=str(key.of))


def _made_in(plan: Plan, stores: Stores, content: Content) -> Arena:
    """The device arena in which a unit's merged weights are made: where they will be used."""
    weights = content.weights
    key = plan.places[weights][content.unit] if weights is not None else None
    if key is None:
        key = ArenaKey("device", "slot", content.unit % plan.slots)
    return stores.ensure(key)


def _keep_base(plan: Plan, stores: Stores, filler: Filler, base: Content) -> None:
    """Have the device hold the base from which a unit is merged, if the first phase will use it."""
    first = distinct(plan.phases)[0]
    key = plan.places[first][base.unit]
    on_host = stores.get(ArenaKey("host", "weights", base.unit, first))
    wanted = first == base.weights and key is not None and on_host is None
    if wanted and key is not None and stores.holding(base) is None:
        filler.fill(stores[key], base)


def _premerge(plan: Plan, stores: Stores, filler: Filler) -> None:
    """Fill the arenas of the later weight sets.

    They are merged from the base, which the first one's arenas hold until they are merged too.
    """
    first, *later = distinct(plan.phases)
    wanted = [
        (stores[key], Content(unit, weights), stores[own])
        for weights in later
        for unit, (key, own) in enumerate(
            zip(plan.places[weights], plan.places[first], strict=True)
        )
        if key is not None and own is not None
    ]
    missing = [each for each in wanted if each[0].content != each[1]]
    for _, content, main in missing:
        if content.weights is not None and content.weights.adapters:
            base = content.base
            if main.content not in (base, Content(content.unit, first)):
                filler.fill(main, base)
    for arena, content, _ in missing:
        filler.fill(arena, content)
