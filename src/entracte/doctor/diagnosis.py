"""Diagnoses a machine. A small one is fine: the checks say what will work on it."""

from pathlib import Path

import torch

from entracte.config.wording import worded
from entracte.errors import BudgetError, RequestError
from entracte.machine import survey
from entracte.machine.device import driver_version
from entracte.machine.disk import weight_bytes
from entracte.machine.hardware import Hardware
from entracte.machine.peers import with_devices
from entracte.machine.refused import first_line
from entracte.planner.forecast import FULL_SIZE, forecast, typical_costs, typical_gain
from entracte.planner.model_profile import published
from entracte.planner.prediction import Prediction
from entracte.residency import Backend

from . import device, group, host, model, rates
from .findings import Check, Findings, GroupFindings, Verdict

__all__ = ["Check", "Findings", "GroupFindings", "Verdict", "diagnose", "examine"]


def examine(
    backend: Backend, dtype: torch.dtype, folder: Path | None = None, refresh: bool = False
) -> Findings:
    """Examine a machine. folder: the model's, whose disk is measured. Raises RequestError if it is
    not a folder, NotMeasured if it cannot be read.
    """
    if folder is not None and not folder.is_dir():
        raise RequestError(f"{folder} is not a folder; name the one that holds the model's files")
    model_bytes = 0 if folder is None else weight_bytes(folder)
    figures = published(FULL_SIZE)
    surveyed = survey(backend, dtype, folder, refresh, peers=True)
    costs = typical_costs(surveyed.hardware)
    try:
        full_size: Prediction | str = forecast(surveyed.hardware, costs)
    except BudgetError as error:
        full_size = worded(error)
    return Findings(
        survey=surveyed,
        full_size=full_size,
        on_gpu=backend.device.type == "cuda",
        gpu_seen=torch.cuda.is_available(),
        nvidia_driver=driver_version(),
        torch_version=torch.__version__,
        torch_cuda=torch.version.cuda,
        triton=_why_no_triton(),
        model_bytes=model_bytes or figures.nbytes,
        folder_given=folder is not None,
        figures=figures,
        computing_s=costs.computing,
        group=_group(surveyed.hardware) if backend.device.type == "cuda" else None,
    )


def diagnose(findings: Findings) -> tuple[Check, ...]:
    """Every check that applies."""
    checks = [device.device(findings), device.torch_version(findings)]
    if findings.on_gpu:
        checks += [
            device.capability(findings),
            device.driver(findings),
            device.triton(findings),
            device.device_memory(findings),
            device.link(findings),
        ]
    if findings.group is not None:
        checks += [group.topology(findings.group), group.between(findings.group)]
        checks.append(group.together(findings.group))
    checks.append(host.host_memory(findings))
    if findings.on_gpu:
        checks.append(host.pinned_memory(findings))
    checks += [host.swap(findings), model.full_size(findings)]
    checks += rates.computed(findings)
    checks += [rates.pageable(findings), rates.disk(findings)]
    return tuple(checks)


def _group(alone: Hardware) -> GroupFindings | None:
    """What the GPUs are together; None if there is one."""
    devices = torch.cuda.device_count()
    if devices < 2:
        return None
    names = tuple(torch.cuda.get_device_name(number) for number in range(devices))
    hardware = with_devices(alone, devices)
    assert hardware.peers is not None  # there are several
    gain = typical_gain(hardware)
    return GroupFindings(names, hardware.peers, alone.peers is not None, gain)


def _why_no_triton() -> str | None:
    try:
        import triton  # noqa: F401 only whether it can be
    except ImportError as error:
        return first_line(error)
    return None
