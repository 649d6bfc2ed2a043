"""Which version of LTX a checkpoint is, and which are supported."""

from collections.abc import Mapping
from typing import Any

from entracte.errors import CheckpointError

SUPPORTED = ("2.3",)


def model_version(metadata: Mapping[str, str], config: Mapping[str, Any], where: object) -> str:
    """The version a header declares, or that its transformer config implies: "2.3", "2.0", …"""
    declared = metadata.get("model_version")
    if declared:
        return ".".join(declared.split(".")[:2])
    transformer = config.get("transformer", {})
    if not isinstance(transformer, dict):
        raise CheckpointError(f"{where}: the part transformer of its config is not a JSON object")
    return "2.3" if transformer.get("cross_attention_adaln") else "2.0"


def require_supported(version: str, where: object) -> None:
    """Raise CheckpointError, by name, for a version that cannot be run yet."""
    if version not in SUPPORTED:
        raise CheckpointError(
            f"{where} is LTX-{version}; this release runs LTX-{', LTX-'.join(SUPPORTED)} only"
        )
