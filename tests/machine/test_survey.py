import os
from pathlib import Path

import pytest
import torch

from entracte.machine import device as device_module
from entracte.machine.device import Link, device_facts, driver_version, link_of
from entracte.machine.host import host_facts

GIB = 2**30
MIB = 2**20


# The host's memory.


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {
    "proc/meminfo": "MemTotal:       67108864 kB\nMemFree:  1024 kB\nMemAvailable:   41943040 kB\n"
    "HugePages_Total:       0\nSwapTotal:       2097152 kB\nSwapFree:        1048576 kB\n",
    "proc/self/status": "Name:\tpython\nVmRSS:\t  3000 kB\nRssAnon:\t 1048576 kB\n",
}


def test_without_control_groups(tmp_path: Path) -> None:
    facts = host_facts(lay_out(tmp_path, MEMINFO))
    assert facts.total == 64 * GIB
    assert facts.limit is None
    assert facts.available == 40 * GIB
    assert facts.own == GIB
    assert facts.takeable == 41 * GIB
    assert (facts.swap, facts.swap_used) == (2 * GIB, GIB)
    assert not facts.virtual_machine_of_windows


def test_the_lowest_limit_of_version_2_counts(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/user/job"
    facts = host_facts(
        lay_out(
            tmp_path,
            MEMINFO
            | {
                "proc/self/cgroup": "0::/user/job\n",
                f"{group}/memory.max": "max\n",
                "sys/fs/cgroup/user/memory.max": f"{16 * GIB}\n",
                "sys/fs/cgroup/user/memory.current": f"{10 * GIB}\n",
                "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {4 * GIB}\n",
                "sys/fs/cgroup/other/memory.max": "4096\n",
            },
        )
    )
    assert facts.total == facts.limit == 16 * GIB
    assert facts.available == 10 * GIB  # what is left, for cached files give way
    assert facts.takeable == 11 * GIB


def test_version_1(tmp_path: Path) -> None:
    """A container: the group's path is the host's, and the group itself is seen as the top."""
    facts = host_facts(
        lay_out(
            tmp_path,
            MEMINFO
            | {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * GIB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{7 * GIB}\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 1024\n",
            },
        )
    )
    assert facts.total == facts.limit == 8 * GIB
    assert facts.available == GIB + 1024


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    facts = host_facts(
        lay_out(
            tmp_path,
            MEMINFO
            | {
                "proc/self/cgroup": "4:memory:/\n",
                f"{folder}/memory.limit_in_bytes": "9223372036854771712\n",
                f"{folder}/memory.usage_in_bytes": "1000\n",
            },
        )
    )
    assert (facts.total, facts.limit, facts.available) == (64 * GIB, None, 40 * GIB)


def test_a_group_that_uses_more_than_it_may(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "1000\n",
        "sys/fs/cgroup/memory.current": "2000\n",
    }
    facts = host_facts(lay_out(tmp_path, MEMINFO | files))
    assert facts.available == 0
    assert facts.takeable == 1000


def test_nothing_is_known(tmp_path: Path) -> None:
    facts = host_facts(tmp_path)
    assert (facts.total, facts.available, facts.swap, facts.takeable) == (None, None, None, None)


def test_linux_within_windows(tmp_path: Path) -> None:
    files = {"proc/sys/kernel/osrelease": "5.15.167.4-microsoft-standard-WSL2\n"}
    assert host_facts(lay_out(tmp_path, files)).virtual_machine_of_windows


def test_this_host() -> None:
    facts = host_facts()
    assert facts.total is not None
    assert facts.total > 100 * MIB
    assert facts.takeable is not None
    assert 0 < facts.takeable <= facts.total


# What a device says.


def lay_out_link(root: Path, lanes: str, own: str, slot: str) -> Path:
    lay_out(
        root,
        {
            "bridge/max_link_speed": slot,
            "bridge/card/current_link_width": lanes,
            "bridge/card/max_link_speed": own,
            "bridge/card/current_link_speed": "2.5 GT/s PCIe\n",  # it is idle
        },
    )
    return root / "bridge" / "card"


@pytest.mark.parametrize(
    ("lanes", "own", "slot", "expected"),
    [
        ("16\n", "32.0 GT/s PCIe\n", "32.0 GT/s PCIe\n", Link(5, 16)),
        ("16\n", "32.0 GT/s PCIe\n", "8.0 GT/s PCIe\n", Link(3, 16)),
        ("4\n", "16.0 GT/s PCIe\n", "Unknown\n", Link(4, 4)),
        ("0\n", "16.0 GT/s PCIe\n", "16.0 GT/s PCIe\n", None),
        ("255\n", "16.0 GT/s PCIe\n", "16.0 GT/s PCIe\n", None),
        ("16\n", "Unknown\n", "Unknown\n", None),
    ],
)
def test_link(tmp_path: Path, lanes: str, own: str, slot: str, expected: Link | None) -> None:
    assert link_of(lay_out_link(tmp_path, lanes, own, slot)) == expected


def test_no_link(tmp_path: Path) -> None:
    assert link_of(tmp_path / "gone") is None


def test_a_link_carries_what_cards_are_said_to_get() -> None:
    assert Link(5, 16).bytes_per_second == pytest.approx(55e9, rel=0.01)
    assert Link(4, 16).bytes_per_second == pytest.approx(25e9, rel=0.01)
    assert Link(3, 4).bytes_per_second < 4e9


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        (
            "NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs@x) ",
            "570.86.15",
        ),
    ],
)
def test_driver_version(tmp_path: Path, line: str, version: str) -> None:
    path = tmp_path / "version"
    path.write_text(f"NVRM version: {line}\nGCC version:  gcc version 12.3.0\n")
    assert driver_version(path) == version


def test_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_version(tmp_path / "gone") is None


def test_driver_version_by_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 560.35.03\necho 560.35.03\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert driver_version(tmp_path / "gone") == "560.35.03"


def test_facts_of_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of torch's answers goes where."""

    class Properties:
        name = "NVIDIA L4"
        major, minor = 8, 9
        pci_domain_id, pci_bus_id, pci_device_id = 0, 0x1B, 3

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20, 22))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1)
    monkeypatch.setattr(device_module, "driver_version", lambda: "1.2")
    facts = device_facts(torch.device("cuda", 0))
    assert (facts.free, facts.total, facts.own) == (20, 22, 1)
    assert facts.name == "NVIDIA L4"
    assert facts.capability == (8, 9)
    assert facts.slot == "0000:1b:03.0"
    assert facts.driver == "1.2"


def test_facts_of_the_cpu() -> None:
    facts = device_facts(torch.device("cpu"))
    assert facts.name
    assert facts.total is None
