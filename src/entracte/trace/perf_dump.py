"""The performance dump: one generation's times as JSON, in the shape of SGLang's."""

import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from entracte.files import write_atomically

from .recording import closure, distinct_names, recording
from .trace import Trace


def perf_dump(trace: Trace, meta: dict[str, Any], tag: str = "entracte") -> dict[str, Any]:
    """The dump as data, without prompts and paths; `docs/reference/performance-dump.md`.

    At level `off` there is no closure and no recording.
    """
    names = distinct_names(trace.spans)
    recorded = recording(trace)
    more = {} if recorded is None else {"closure": closure(trace), "recording": recorded}
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
        **more,
    }


def write_perf_dump(path: Path, dump: dict[str, Any]) -> None:
    """Write a dump, whole or not at all."""
    with write_atomically(path) as part:
        part.write_text(json.dumps(dump, indent=1) + "\n")
