"""The published LTX-2.3 checkpoint and upsampler, tensor by tensor, as their headers list them."""

import gzip
import json
from importlib.resources import files
from typing import Any

LISTING = "ltx-2.3-full.json.gz"


def published_listing() -> Any:
    """`tensors` (shape by key) and `metadata` of the checkpoint; the same under `upsampler`."""
    packed = (files("entracte.checkpoints") / "data" / LISTING).read_bytes()
    return json.loads(gzip.decompress(packed))


def published_keys() -> list[str]:
    """The keys of the published checkpoint."""
    return list(published_listing()["tensors"])
