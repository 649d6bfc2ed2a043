"""Made-up performance dumps, in the format of docs/reference/performance-dump.md."""

import json
from pathlib import Path
from typing import Any

GB = 10**9
BLOCKS = 48
STATES = ["disk", "host", "in flight", "device", "merged", "both"]
HOST, FLIGHT, DEVICE, MERGED = 1, 2, 3, 4
BLOCK_BYTES = 780_000_000

Data = dict[str, Any]


def span(start: float, end: float, **more: Any) -> Data:
    return {"start_ms": round(start, 4), "duration_ms": round(end - start, 4), **more}


def stage(name: str, start: float, end: float, device_gb: float, **waits: float) -> Data:
    parts = {"copy": 0.0, "merge": 0.0, "read": 0.0, "host": 0.0} | waits
    parts["compute"] = end - start - sum(waits.values())
    memory = {
        "device_bytes": int(device_gb * GB),
        "weights_bytes": int(0.8 * device_gb * GB),
        "host_bytes": 52 * GB,
    }
    return span(start, end, name=name, parts=parts, steps=[], memory=memory)


def snapshot_low_vram(tag: str = "entracte", slow: float = 1.0) -> Data:
    """48 blocks roll from the base through in flight to merged, as `refine` computes.

    slow: by how much more time every swap takes, in which the device then waits.
    """
    stages = [
        stage("validate", 0, 4, 40),
        stage("load weights", 5, 420, 40, read=300.0),
        stage("encode text", 420, 910, 44, copy=120.0, host=6.0),
        stage("connect text", 912, 930, 40),
        stage("prepare latents (stage 1)", 930, 940, 40),
        stage("switch to stage 1", 940, 941, 40),
        stage("denoise", 942, 9342, 47.5),
        stage("upsample", 9344, 9500, 46),
        stage("switch to stage 2", 9500, 9501, 40),
    ]
    denoise = stages[6]
    denoise["steps"] = [span(942 + 280 * n, 942 + 280 * (n + 1)) for n in range(30)]
    blocks = [
        span(t + 1, t + 5.5, component="transformer", unit=unit)
        for n in range(30)
        for unit in range(BLOCKS)
        for t in [942 + 280 * n + 5.8 * unit]
    ]
    residency: list[list[list[float]]] = [
        [[0, HOST], [8 + 6 * u, FLIGHT], [14 + 6 * u, DEVICE]] for u in range(BLOCKS)
    ]
    transfers = [
        span(
            8 + 6 * u,
            14 + 6 * u,
            what="copy",
            lane="copies",
            component="transformer",
            unit=u,
            weights="base",
            bytes=BLOCK_BYTES,
        )
        for u in range(BLOCKS)
    ]
    transfers.append(
        span(
            425,
            545,
            what="copy",
            lane="on_demand",
            component="text_encoder",
            unit=0,
            weights="base",
            bytes=24 * GB // 10,
        )
    )
    waits = [
        span(10, 310, cause="read", component="text_encoder", unit=0),
        span(425, 545, cause="copy", component="text_encoder", unit=0),
        span(700, 706, cause="host", component=None, unit=None),
    ]
    # The swap: a block's memory is taken over once it has computed for the last time.
    copied = 9501.0
    now = 9503.0
    waited = 0.0
    copy_ms = 14.0 * slow
    for unit in range(BLOCKS):
        begin, copied = copied, copied + copy_ms
        residency[unit] += [[round(begin, 4), FLIGHT], [round(copied, 4), MERGED]]
        transfers.append(
            span(
                begin,
                copied,
                what="copy",
                lane="copies",
                component="transformer",
                unit=unit,
                weights="merged",
                bytes=BLOCK_BYTES,
            )
        )
        if copied > now:
            waits.append(span(now, copied, cause="copy", component="transformer", unit=unit))
            waited += copied - now
            now = copied
        blocks.append(span(now, now + 18, component="transformer", unit=unit))
        now += 18.2
    first, starts = now, 9503.0
    steps = [span(starts, first)]
    for _ in range(2):
        for unit in range(BLOCKS):
            blocks.append(span(now + 0.1, now + 18.1, component="transformer", unit=unit))
            now += 18.2
        steps.append(span(first, now))
        first = now
    refine = stage("refine", starts, now, 52.0, copy=round(waited, 4))
    refine["steps"] = steps
    stages.append(refine)
    end = now + 1
    decode = stage("decode video", end + 40, end + 2240, 49)
    stages += [stage("decode audio", end, end + 39, 41), decode]
    stages.append(stage("mux", end + 2241, end + 2400, 40, host=120.0))
    memory = {
        "transformer": {
            "device": [[0, 0]] + [[14 + 6 * u, BLOCK_BYTES * (u + 1)] for u in range(BLOCKS)],
            "pinned": [[0, 2 * BLOCK_BYTES * BLOCKS]],
        },
        "text_encoder": {
            "device": [[0, 0], [425, 24 * GB // 10], [905, 0]],
            "pageable": [[0, 24 * GB // 10]],
        },
        "video_vae": {
            "device": [[0, 0], [end + 40, 2 * GB], [end + 2240, 0]],
            "pageable": [[0, 2 * GB]],
        },
    }
    return finish(tag, "snapshot", end + 2401, stages, waits, transfers, blocks, memory, residency)


def resident(tag: str = "entracte") -> Data:
    """Both sets stay: nothing moves, and no wait is left."""
    stages = [
        stage("encode text", 0, 480, 84),
        stage("denoise", 481, 8881, 88),
        stage("refine", 8882, 11500, 93),
        stage("decode video", 11501, 13700, 90),
    ]
    stages[1]["steps"] = [span(481 + 280 * n, 481 + 280 * (n + 1)) for n in range(30)]
    memory = {"transformer": {"device": [[0, 2 * BLOCK_BYTES * BLOCKS]]}}
    residency: list[list[list[float]]] = [[[0, 5]] for _ in range(BLOCKS)]
    return finish(tag, "resident", 13701, stages, [], [], [], memory, residency)


def plain(tag: str = "sglang") -> Data:
    """As another engine writes it."""
    return {
        "timestamp": "2026-11-23T12:00:00+00:00",
        "request_id": "0",
        "commit_hash": "",
        "tag": tag,
        "total_duration_ms": 14959.1,
        "steps": [
            {"name": "TextEncodingStage", "duration_ms": 611.8},
            {"name": "DenoisingStage", "duration_ms": 12000.5},
            {"name": "DecodingStage", "duration_ms": 2300.0},
        ],
        "denoise_steps_ms": [{"step": n, "duration_ms": 300.0} for n in range(40)],
        "memory_checkpoints": {
            "DenoisingStage": {
                "allocated_mb": 36_000.0,
                "reserved_mb": 40_000.0,
                "peak_allocated_mb": 48_000.0,
                "peak_reserved_mb": 52_000.0,
            }
        },
        "meta": {"model": "a model"},
    }


def finish(
    tag: str,
    mode: str,
    total: float,
    stages: list[Data],
    waits: list[Data],
    transfers: list[Data],
    blocks: list[Data],
    memory: Data,
    residency: list[list[list[float]]],
) -> Data:
    """A whole dump, in which everything adds up."""
    between = total - sum(each["duration_ms"] for each in stages)
    parts = {"compute": 0.0, "copy": 0.0, "merge": 0.0, "read": 0.0, "host": between}
    rest = {"name": "between stages", "start_ms": None, "duration_ms": between}
    spent = sum(sum(each["parts"].values()) for each in stages)
    return plain(tag) | {
        "total_duration_ms": total,
        "steps": [{"name": s["name"], "duration_ms": s["duration_ms"]} for s in stages],
        "meta": {"mode": mode},
        "closure": {"end_to_end_ms": total, "parts_ms": spent + between},
        "recording": {
            "version": 1,
            "level": "blocks" if blocks else "stages",
            "stages": [*stages, rest | {"parts": parts, "steps": [], "memory": None}],
            "waits": waits,
            "transfers": sorted(transfers, key=lambda each: float(each["start_ms"])),
            "blocks": blocks,
            "memory": memory,
            "residency": {"component": "transformer", "states": list(STATES), "blocks": residency},
        },
    }


def write(folder: Path, data: Any, name: str = "run.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
