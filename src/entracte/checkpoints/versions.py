"""Which version of LTX a checkpoint is. Needs no torch."""

import re
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
    """Empty where nothing is declared, or nothing that is a version."""
    match = re.match(r"(\d+)\.(\d+)", metadata.get("model_version", ""))
    if match is None:
        return ""
    number = int(match[1]), int(match[2])
    # What came between the two is taken for the older one, as officially.
    return "2.0" if (2, 0) <= number < (2, 3) else f"{number[0]}.{number[1]}"


def _implied(config: Mapping[str, Any], where: object) -> str:
    transformer = config.get("transformer", {})
    if not isinstance(transformer, dict):
        raise CheckpointError(f"{where}: the part transformer of its config is not a JSON object")
    if transformer.get("use_keyframes_abs_pos_embedding"):
        return "2.5"
    return "2.3" if transformer.get("cross_attention_adaln") else "2.0"
