"""The performance dump: one generation's times as JSON, in the shape of SGLang's."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from entracte.files import write_atomically

from .trace import StageSpan, Trace


def perf_dump(trace: Trace, meta: dict[str, Any], tag: str = "entracte") -> dict[str, Any]:
    """The dump as data, without prompts and paths. Stages of one name are told apart by number."""
    names = _distinct_names(trace.spans)
    return {
        "timestamp": datetime.fromtimestamp(trace.created, UTC).isoformat(),
        "request_id": uuid.uuid4().hex,
        "commit_hash": "",
        "tag": tag,
        "total_duration_ms": trace.seconds * 1e3,
        "steps": [
            {"name": name, "duration_ms": span.seconds * 1e3}
            for name, span in zip(names, trace.spans, strict=True)
        ],
        "denoise_steps_ms": [
            {"step": step, "duration_ms": seconds * 1e3}
            for step, seconds in enumerate(s for span in trace.spans for s in span.steps)
        ],
        "memory_checkpoints": {
            name: {
                "allocated_mb": span.memory.allocated_mb,
                "reserved_mb": span.memory.reserved_mb,
                "peak_allocated_mb": span.memory.peak_allocated_mb,
                "peak_reserved_mb": span.memory.peak_reserved_mb,
                "peak_host_anon_mb": span.memory.peak_host_anon_mb,
            }
            for name, span in zip(names, trace.spans, strict=True)
            if span.memory is not None
        },
        "meta": meta | {"counts": trace.counts},
    }


def write_perf_dump(path: Path, dump: dict[str, Any]) -> None:
    """Write a dump, whole or not at all."""
    with write_atomically(path) as part:
        part.write_text(json.dumps(dump, indent=1) + "\n")


def _distinct_names(spans: list[StageSpan]) -> list[str]:
    seen: dict[str, int] = {}
    names = []
    for span in spans:
        seen[span.name] = seen.get(span.name, 0) + 1
        names.append(span.name if seen[span.name] == 1 else f"{span.name} ({seen[span.name]})")
    return names
