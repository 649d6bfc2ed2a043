"""The published checkpoints, tensor by tensor, as their headers list them.

Those of LTX-2.3 and of LTX-2.5's transformer are listed from their headers. LTX-2.0's list follows
from the sizes that diffusers has for it, and what else LTX-2.5 has is as in LTX-2.3
(`benchmarks/published_listing.py`).
"""

import gzip
import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

LISTED = ("2.0", "2.3", "2.5")


def published_listing(version: str = "2.3") -> Any:
    """`tensors` (shape by key) and `metadata` of the checkpoint; the same under `upsampler`."""
    packed = (files("entracte.checkpoints") / "data" / f"ltx-{version}-full.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))


@lru_cache(maxsize=len(LISTED))
def published_keys(version: str = "2.3") -> frozenset[str]:
    """The keys of the published checkpoint of a version."""
    return frozenset(published_listing(version)["tensors"])
