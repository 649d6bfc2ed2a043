"""Bounds of a component's config, checked before anything is built from it."""

from collections.abc import Mapping
from typing import Any

from entracte.errors import CheckpointError

from .sources import ComponentSource

# Far above what any published config has: sample rates, 48,000, are the largest numbers in it.
MOST = 10**6
LONGEST = 1000
DEEPEST = 12

BLOCKS = "transformer_blocks"


def check_config(source: ComponentSource) -> None:
    """Raise CheckpointError if a config is out of bounds, or declares too many layers."""
    if source.name == "transformer":
        layers = source.config.get("num_layers")
        found = source.block_count(BLOCKS)
        if layers != found:
            raise CheckpointError(
                f"transformer: its config has num_layers={layers!r:.40}, and its weights have "
                f"{found} blocks"
            )
    _check(source.name, source.config, len(source.tensors), 0)


def _check(where: str, value: Any, tensors: int, depth: int) -> None:
    if depth > DEEPEST:
        raise CheckpointError(f"{where}: this config is nested too deeply")
    match value:
        case Mapping() | list() if len(value) > LONGEST:
            raise CheckpointError(f"{where}: this config has {len(value):,} values")
        case Mapping():
            for key, each in value.items():
                _check(f"{where}.{key}", each, tensors, depth + 1)
                if _is_count(key) and isinstance(each, int) and not 0 <= each <= tensors:
                    raise CheckpointError(
                        f"{where}: its config has {key}={each:,}, and its weights are {tensors:,} "
                        "tensors"
                    )
        case list():
            for number, each in enumerate(value):
                _check(f"{where}.{number}", each, tensors, depth + 1)
        # Not math.isfinite: it raises for integers of over 308 digits. NaN compares with nothing.
        case int() | float() if not abs(value) <= MOST:
            raise CheckpointError(f"{where}: this config has a number out of bounds")


def _is_count(key: str) -> bool:
    return key.endswith("num_layers") or key.startswith(("num_blocks", "num_res_blocks"))
