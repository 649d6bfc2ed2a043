"""Which version of LTX a checkpoint is. Needs no torch."""

from collections.abc import Mapping
from typing import Any

from entracte.errors import CheckpointError
from entracte.versions import DEFAULTS


def version_name(metadata: Mapping[str, str], config: Mapping[str, Any], where: object) -> str:
    """The version that a header declares, or that its transformer's config implies.

    Raises CheckpointError, by name, for a version that cannot be run yet.
    """
    name = _declared(metadata) or _implied(config, where)
    if name not in DEFAULTS:
        raise CheckpointError(
            f"{where} is LTX-{name}; this release runs LTX-{', LTX-'.join(DEFAULTS)} only"
        )
    return name


def _declared(metadata: Mapping[str, str]) -> str:
    return ".".join(metadata.get("model_version", "").split(".")[:2])


def _implied(config: Mapping[str, Any], where: object) -> str:
    transformer = config.get("transformer", {})
    if not isinstance(transformer, dict):
        raise CheckpointError(f"{where}: the part transformer of its config is not a JSON object")
    return "2.3" if transformer.get("cross_attention_adaln") else "2.0"
