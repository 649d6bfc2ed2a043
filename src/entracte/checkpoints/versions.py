"""Which version of LTX a checkpoint is."""

from collections.abc import Mapping
from typing import Any

from entracte.errors import CheckpointError
from entracte.models.registry import VERSIONS, ModelVersion


def model_version(
    metadata: Mapping[str, str], config: Mapping[str, Any], where: object
) -> ModelVersion:
    """The version that a header declares, or that its transformer's config implies.

    Raises CheckpointError, by name, for a version that cannot be run yet.
    """
    name = _version_name(metadata, config, where)
    if name not in VERSIONS:
        raise CheckpointError(
            f"{where} is LTX-{name}; this release runs LTX-{', LTX-'.join(VERSIONS)} only"
        )
    return VERSIONS[name]


def _version_name(metadata: Mapping[str, str], config: Mapping[str, Any], where: object) -> str:
    declared = metadata.get("model_version")
    if declared:
        return ".".join(declared.split(".")[:2])
    transformer = config.get("transformer", {})
    if not isinstance(transformer, dict):
        raise CheckpointError(f"{where}: the part transformer of its config is not a JSON object")
    return "2.3" if transformer.get("cross_attention_adaln") else "2.0"
