"""Checks of the device, and of the software that drives it."""

import re

from entracte.units import duration, size

from .findings import Check, Findings

OLDEST_TORCH = (2, 11)
OLDEST_CAPABILITY = (8, 0)  # for which torch.cuda.is_bf16_supported is true, without emulation
FEW_LANES = 4
OLD_GENERATION = 3


def device(findings: Findings) -> Check:
    """Whether there is a GPU."""
    name = findings.survey.device.name
    if findings.on_gpu:
        return Check("device", name, "good")
    advice = (
        f"Without a GPU the full-size model computes {duration(findings.computing_s)} for a "
        "typical video. The demonstration model is quick."
    )
    if findings.gpu_seen:
        return Check(
            "device", f"{name} (a GPU is there)", "warning", f"{advice} Use --device cuda."
        )
    if findings.nvidia_driver is None:
        return Check("device", f"{name}, no GPU", "warning", advice)
    found = f"{name}; NVIDIA driver {findings.nvidia_driver} is there, but torch sees no GPU"
    if findings.torch_cuda is None:
        return Check("device", found, "problem", "This torch is for CPUs: install one for CUDA.")
    return Check(
        "device",
        found,
        "problem",
        f"This torch is for CUDA {findings.torch_cuda}, which may need a newer driver. In a "
        "container, give it the GPU; see that CUDA_VISIBLE_DEVICES does not hide it.",
    )


def torch_version(findings: Findings) -> Check:
    """Whether torch is new enough."""
    version = re.match(r"(\d+)\.(\d+)", findings.torch_version)
    old = version is not None and (int(version[1]), int(version[2])) < OLDEST_TORCH
    built = f"CUDA {findings.torch_cuda}" if findings.torch_cuda else "CPU"
    return Check(
        "torch",
        f"{findings.torch_version} ({built})",
        "problem" if old else "good",
        f"Entracte needs {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]} or newer." if old else "",
    )


def capability(findings: Findings) -> Check:
    """Whether the device multiplies bfloat16."""
    version = findings.survey.device.capability
    if version is None:
        return Check("compute capability", "unknown", "warning", "The device does not say it.")
    found = f"{version[0]}.{version[1]}"
    if version >= OLDEST_CAPABILITY:
        return Check("compute capability", found, "good")
    return Check(
        "compute capability",
        found,
        "warning",
        "Below 8.0 bfloat16 is not multiplied in hardware: it works, several times slower, and "
        "merges are not fused. --mode resident and snapshot merge least often.",
    )


def driver(findings: Findings) -> Check:
    """The NVIDIA driver's version."""
    if findings.nvidia_driver is None:
        return Check(
            "driver", "unknown", "good", "Kept rates are not measured again when it changes."
        )
    return Check("driver", findings.nvidia_driver, "good")


def triton(findings: Findings) -> Check:
    """Whether merges can be fused."""
    if findings.triton is None:
        return Check("Triton", "can be imported", "good")
    return Check(
        "Triton",
        f"cannot be imported ({findings.triton})",
        "warning",
        "Merges will be several times slower: install Triton (triton-windows on Windows).",
    )


def device_memory(findings: Findings) -> Check:
    """The device's memory."""
    memory = findings.hardware.device_memory
    total = findings.survey.device.total
    found = f"{size(memory)} can be had"
    if total is not None:
        found += f" of {size(total)}"
    return Check("device memory", found, "good")


def link(findings: Findings) -> Check:
    """The device's PCI Express link."""
    found = findings.survey.device.link
    if found is None:
        return Check("PCIe link", "unknown", "good", "The system does not say; see the rates.")
    words = f"generation {found.generation}, x{found.lanes}"
    sweep = duration(findings.transformer_bytes / found.bytes_per_second)
    if found.lanes > FEW_LANES and found.generation > OLD_GENERATION:
        return Check("PCIe link", words, "good")
    return Check(
        "PCIe link",
        words,
        "warning",
        f"It carries about {size(found.bytes_per_second)} a second, so streaming the "
        f"transformer takes {sweep} a pass. Use a slot of generation 4 or 5 with 16 "
        "lanes, or keep many blocks resident.",
    )
