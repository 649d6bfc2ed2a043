"""How long a request takes under a plan, and what it waits for weights."""

from collections.abc import Mapping

from entracte.residency import Place

from .costs import Costs
from .model_profile import TRANSFORMER
from .schedule_model import BusyUntil, Held, Loops, loan_wait


def waits(c: Costs, held: Held, places: Mapping[str, Place]) -> tuple[list[float], float]:
    """What every stage of a request waits for weights, and its switches together.

    The second of two requests, one right after the other: weights may be under way when it begins.
    """
    loops = Loops(c.copied[TRANSFORMER], held, c.sweeps, c.hardware)
    clock = BusyUntil()
    found: list[float] = []
    switch = 0.0
    for _ in range(2):
        found = []
        clock = loops.begin(clock)
        for stage, seconds in c.stages:
            began = clock.now
            for name in stage.loans:
                place = places.get(name, "resident")
                if place != "resident":
                    w, each = c.copied[name], seconds / len(stage.loans)
                    wait = loan_wait(w, place, each, c.hardware)
                    clock = clock.brought(w.stored / c.hardware.rates.h2d, wait)
            if stage.phase is None:
                clock = clock.computed(seconds)
            else:
                clock = loops.run(stage.phase, clock)
            found.append(max(0.0, clock.now - began - seconds))
        switch = loops.switch
    return found, switch


def latency(c: Costs, held: Held, places: Mapping[str, Place]) -> float:
    """Seconds of a whole request."""
    found, _ = waits(c, held, places)
    return sum(found) + c.computing


def latency_alone(c: Costs, held: Held) -> tuple[float, bool]:
    """Seconds of a request with all other components on the device.

    Also whether other components' weights wait for the transformer's; otherwise waits add up.
    """
    loops = Loops(c.copied[TRANSFORMER], held, c.sweeps, c.hardware)
    if loops.linked:
        return latency(c, held, {}), True
    clock = BusyUntil()
    for number in range(len(c.sweeps)):
        clock = loops.run(number, clock)
    between = sum(seconds for stage, seconds in c.stages if stage.phase is None)
    return clock.now + between, False
