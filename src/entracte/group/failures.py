"""Errors of one rank, told to the others."""

from collections.abc import Mapping
from types import MappingProxyType

from entracte.errors import (
    CheckpointChanged,
    CheckpointError,
    DeviceFault,
    EntracteError,
    NotFinite,
    OutOfMemory,
    PeerFailed,
    ResidencyError,
)

from .messages import Failure

# Errors that the leader raises as they are; others become PeerFailed.
KEPT: Mapping[str, type[EntracteError]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            CheckpointChanged,
            CheckpointError,
            DeviceFault,
            NotFinite,
            OutOfMemory,
            ResidencyError,
        )
    }
)


def is_reason(error: BaseException) -> bool:
    """Whether an error cannot be the consequence of another rank's.

    torch raises RuntimeError where another rank of an exchange is gone.
    """
    return not isinstance(error, RuntimeError | PeerFailed)


def error_of(who: str, failure: Failure) -> EntracteError:
    """The error that the leader raises for a follower's. who: the follower."""
    kind = KEPT.get(failure.kind)
    if kind is not None:
        return kind(f"{who}: {failure.message}")
    return PeerFailed(f"{who} failed: {failure.kind}: {failure.message}")
