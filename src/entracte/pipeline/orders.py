"""What the leader of a group has its followers do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from entracte.parallel import Layout
from entracte.request import Request
from entracte.residency import Residency
from entracte.trace.trace import Level


@dataclass(frozen=True, slots=True)
class MakeVideo:
    """Take part in a video.

    residency: as the leader's planner decided; None: as until now. layouts: of the phases.
    level: of the trace that is reported. cheaper: it is tried again, with less memory.
    exchange_shares: for the trace; see `Trace`.
    """

    request: Request
    residency: Residency | None
    layouts: tuple[Layout, ...]
    level: Level
    cheaper: bool
    exchange_shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadWeights:
    """Load weights for a request. residency: see `MakeVideo`."""

    request: Request
    residency: Residency | None


@dataclass(frozen=True, slots=True)
class HoldWeights:
    """Hold weights in another way from the next request on."""

    residency: Residency


@dataclass(frozen=True, slots=True)
class ForgetPrompts:
    """Clear the cache of encoded prompts."""


EngineOrder = MakeVideo | LoadWeights | HoldWeights | ForgetPrompts
