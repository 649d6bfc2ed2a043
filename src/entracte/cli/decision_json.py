"""Decisions as JSON."""

from dataclasses import asdict
from typing import Any

from entracte.config.wording import residency_flags
from entracte.planner.decision import Decision, Option, arguments
from entracte.planner.group import GroupGain
from entracte.planner.prediction import StagePrediction


def decision_json(decision: Decision) -> dict[str, Any]:
    """The chosen option, the alternatives, and the limits in bytes."""
    limits = asdict(decision.limits)
    return {
        "chosen": option_json(decision.chosen),
        "alternatives": [option_json(each) for each in decision.alternatives],
        "limits": {name: limits[name] for name in ("device", "host", "pinned", "unified")},
    }


def option_json(option: Option) -> dict[str, Any]:
    """One plan, its prediction, and why it was chosen or not.

    flags: those that make `entracte generate` use it.
    """
    p = option.prediction
    return {
        "mode": p.way.mode,
        "policy": p.way.policy,
        "resident_blocks": p.way.resident,
        "merged_blocks": p.way.merged,
        "transformer_from": p.way.home,
        "places": dict(p.places),
        "latency_s": p.latency_s,
        "stall_s": p.stall_s,
        "switch_s": p.switch_s,
        "exchange_s": p.exchange_s,
        "peak_device_bytes": p.peak_device_bytes,
        "peak_host_bytes": p.peak_host_bytes,
        "for_peers_bytes": p.for_peers_bytes,
        "at_peers_bytes": p.at_peers_bytes,
        "fits": option.fits,
        "reason": option.reason,
        "stages": [_stage_json(stage) for stage in p.stages],
        "flags": residency_flags(arguments(p)),
    }


def group_json(group: GroupGain) -> dict[str, Any]:
    """What several devices share, and gain over one."""
    return {
        "devices": group.devices,
        "layouts": {name: asdict(layout) for name, layout, _ in group.layouts},
        "together_s": group.together_s,
        "alone_s": group.alone_s,
        "pays": group.pays,
    }


def _stage_json(stage: StagePrediction) -> dict[str, Any]:
    return {
        "name": stage.name,
        "seconds": stage.seconds,
        "stall_s": stage.stall_s,
        "exchange_s": stage.exchange_s,
        "peak_device_bytes": stage.peak_device_bytes,
    }
