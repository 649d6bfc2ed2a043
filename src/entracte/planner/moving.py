"""When another plan is worth moving to: bringing its weights takes time, and it must save more."""

from collections.abc import Iterator

from entracte.residency import BufferKey, Plan

from .costs import Costs
from .model_profile import TRANSFORMER
from .prediction import Prediction

# Another plan must be faster by this share. Predictions are hardly more exact.
WORTH_MOVING = 0.05

# Moving must pay for itself within so many requests like the present one.
REQUESTS = 10

# Bytes of host memory that are allocated, pinned and written in a second. On an H100's host 53 GB
# took 12 s.
PINNED = 4.4e9


def moving_seconds(c: Costs, present: Prediction, wanted: Prediction) -> float:
    """How long the weights take that one plan holds for good, and another, in place now, does not.

    What a plan brings anew for every request is part of its latency.
    """
    seconds = 0.0
    for before, after in zip(_plans(c, present), _plans(c, wanted), strict=True):
        for key, nbytes in _for_good(after) - _for_good(before):
            if key.tier == "host":
                seconds += nbytes / PINNED
            elif key.role in ("weights", "kept", "factors"):
                seconds += nbytes / c.hardware.rates.h2d
    return seconds


def is_worth_moving(present: Prediction, better: Prediction, seconds: float) -> bool:
    """Whether a better plan, which it takes some seconds to move to, saves enough."""
    saved = present.latency_s - better.latency_s
    return saved > WORTH_MOVING * better.latency_s and saved * REQUESTS > seconds


def _plans(c: Costs, prediction: Prediction) -> Iterator[Plan]:
    for name in c.sizes:
        if name == TRANSFORMER:
            yield c.plan(prediction.way)
        else:
            yield c.plan_of_other(name, prediction.places.get(name, "resident"))


def _for_good(plan: Plan) -> set[tuple[BufferKey, int]]:
    return {(each.key, each.nbytes) for each in plan.buffers if each.lifetime == "always"}
