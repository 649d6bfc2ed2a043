"""The trace files that a command's settings ask for."""

from typing import TYPE_CHECKING, Any

from entracte.config.generate import GenerateSettings
from entracte.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from entracte.engine import Engine
    from entracte.trace.dump import Dump
    from entracte.trace.trace import Trace, TraceOptions


def check_trace_outputs(settings: GenerateSettings) -> None:
    """Raise MediaError if a file cannot be written, RequestError if it would be empty."""
    from entracte.files import require_writable

    if settings.trace_path is not None and settings.trace_level == "off":
        raise RequestError("--trace-path needs a trace: --trace-level stages or blocks")
    for path in (settings.perf_dump_path, settings.trace_path):
        if path is not None:
            require_writable(path)


def trace_options(settings: GenerateSettings, engine: "Engine") -> "TraceOptions":
    """What to record. Raises RequestError for NVTX without a CUDA device."""
    from entracte.trace.trace import TraceOptions, no_range

    if not settings.nvtx:
        return TraceOptions(settings.trace_level, no_range)
    if engine.backend.device.type != "cuda":
        raise RequestError("--nvtx needs a CUDA device")

    import torch

    return TraceOptions(settings.trace_level, torch.cuda.nvtx.range)


def write_trace_outputs(
    settings: GenerateSettings,
    trace: "Trace",
    meta: dict[str, Any],
    followers: "Sequence[Dump]" = (),
) -> None:
    """Write the files that the settings ask for, each whole or not at all.

    followers: the dumps of the other ranks of a group, in order.
    """
    if settings.perf_dump_path is None and settings.trace_path is None:
        return

    from entracte.trace.chrome import chrome_trace, write_chrome_trace
    from entracte.trace.write_dump import perf_dump, with_ranks, write_perf_dump

    dump = with_ranks(perf_dump(trace, meta), followers)
    if settings.perf_dump_path is not None:
        write_perf_dump(settings.perf_dump_path, dump)
    if settings.trace_path is not None:
        write_chrome_trace(settings.trace_path, chrome_trace(dump))
