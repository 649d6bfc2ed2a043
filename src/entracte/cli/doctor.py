"""`entracte doctor`: what this machine can do, and what is wrong with it."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entracte.imports import quick_imports

if TYPE_CHECKING:
    from entracte.machine.hardware import Hardware

EXIT_PROBLEM = 1


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        description="Measure this machine for a few seconds, and say what will work on it and what "
        "is wrong. Exits with 1 if there is a problem. Rates are kept from run to run.",
    )
    parser.add_argument(
        "--model", metavar="DIR", type=Path, help="the model's folder, to measure its disk"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument(
        "--refresh", action="store_true", help="measure again what was measured before"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command."""
    with quick_imports():
        import torch

        from entracte.doctor.diagnosis import diagnose, examine
        from entracte.machine.torch_device import pick_device
        from entracte.residency import open_backend

    dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[options.dtype]
    backend = open_backend(pick_device(options.device))
    try:
        findings = examine(backend, dtype, options.model, options.refresh)
    finally:
        backend.close()
    checks = diagnose(findings)
    if options.json:
        hardware = _as_json(findings.hardware)
        print(json.dumps({"checks": [asdict(c) for c in checks], "hardware": hardware}, indent=1))
    else:
        from .console import print_checks

        print_checks(checks)
    if any(check.verdict == "problem" for check in checks):
        sys.exit(EXIT_PROBLEM)


def _as_json(hardware: "Hardware") -> dict[str, Any]:
    return {
        "name": hardware.name,
        "device_memory": hardware.device_memory,
        "host_memory": hardware.host_memory,
        "pinned_memory": hardware.pinned_memory,
        "unified": hardware.unified,
        "rates": asdict(hardware.rates),
        "origins": dict(hardware.origins),
        "devices": hardware.devices,
        "peers": None if hardware.peers is None else asdict(hardware.peers),
    }
