"""Making weight sets before a request needs them: copies on the host, premerged ones anywhere."""

from .buffer import Buffer
from .buffer_key import STAGING, BlockWeights, BufferKey
from .loading import WeightLoader
from .plan import Plan
from .pool import WeightPool
from .spec import distinct


def prepare(plan: Plan, pool: WeightPool, loader: WeightLoader) -> None:
    """Create what the plan keeps ready and is missing. Nothing is created twice."""
    host = [
        (pool[planned.key], content)
        for planned in plan.buffers
        if planned.key.tier == "host" and planned.key != STAGING
        for content in [plan.host_content(planned.key)]
    ]
    missing = [
        (buffer, content)
        for buffer, content in host
        if buffer.content != content and not loader.is_left_to_others(buffer, content)
    ]
    for buffer, content in missing:
        if content.adapter is not None:
            loader.load_factors(buffer, content)
        elif content.weights is not None and not content.weights.adapters:
            loader.load_host(buffer, content, buffer)
    for buffer, content in missing:
        if content.weights is not None and content.weights.adapters:
            _keep_plain(plan, pool, loader, content.plain)
            loader.load_host(buffer, content, _made_in(plan, pool, content))
    if plan.policy.mode == "resident":
        _premerge(plan, pool, loader)


def save_plain(plan: Plan, pool: WeightPool, loader: WeightLoader) -> None:
    """Fill the plan's new host buffers from the device, as far as it has their contents."""
    for buffer in pool:
        if buffer.key.tier == "host" and buffer.key.role == "weights":
            content = plan.host_content(buffer.key)
            missing = buffer.content != content and pool.on_device(content) is not None
            if missing and not loader.is_left_to_others(buffer, content):
                loader.load_host(buffer, content, buffer)


def _made_in(plan: Plan, pool: WeightPool, content: BlockWeights) -> Buffer:
    """The device buffer in which a unit is merged: where it will be used."""
    weights = content.weights
    key = plan.places[weights][content.unit] if weights is not None else None
    if key is None:
        key = BufferKey("device", "slot", content.unit % plan.slots)
    return pool.ensure(key)


def _keep_plain(plan: Plan, pool: WeightPool, loader: WeightLoader, plain: BlockWeights) -> None:
    """Load what a unit is merged from to the device, if the first phase will use it."""
    first = distinct(plan.phases)[0]
    key = plan.places[first][plain.unit]
    on_host = pool.get(BufferKey("host", "weights", plain.unit, first))
    wanted = first == plain.weights and key is not None and on_host is None
    if wanted and key is not None and pool.on_device(plain) is None:
        loader.load(pool[key], plain)


def _premerge(plan: Plan, pool: WeightPool, loader: WeightLoader) -> None:
    """Fill the buffers of the later weight sets.

    They are merged from the base, which the buffers of the first set hold until then.
    """
    first, *later = distinct(plan.phases)
    wanted = [
        (pool[key], BlockWeights(unit, weights), pool[own])
        for weights in later
        for unit, (key, own) in enumerate(
            zip(plan.places[weights], plan.places[first], strict=True)
        )
        if key is not None and own is not None
    ]
    missing = [each for each in wanted if each[0].content != each[1]]
    for _, content, main in missing:
        if content.weights is not None and content.weights.adapters:
            plain = content.plain
            if main.content not in (plain, BlockWeights(content.unit, first)):
                loader.load(main, plain)
    for buffer, content, _ in missing:
        loader.load(buffer, content)
