"""The host's memory that the system and its control groups let this process use."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Bytes; None is unknown.

    total: of the machine, or of this process's control group if that is less. limit: the control
    group's, if it is the lower one. available: what can be taken now. own: what this process has
    taken. lockable: what it may lock (RLIMIT_MEMLOCK); None also means no limit.
    virtual_machine_of_windows: whether this is Linux within Windows (WSL).
    """

    total: int | None
    limit: int | None
    available: int | None
    own: int
    swap: int | None
    swap_used: int | None
    lockable: int | None
    virtual_machine_of_windows: bool = False

    @property
    def takeable(self) -> int | None:
        """Bytes that this process may use in total."""
        if self.total is None or self.available is None:
            return self.total
        return min(self.total, self.available + self.own)


def host_facts(root: Path = ROOT) -> HostFacts:
    """The host's memory now. `root`: where proc and sys are."""
    info = _numbers_in_kib(root / "proc/meminfo")
    physical = info.get("MemTotal", _physical_by_sysconf() if root == ROOT else None)
    groups = _groups(root)
    limits = [limit for limit, _ in groups]
    total = min([*limits, physical], default=None) if physical is not None else None
    left = [limit - used for limit, used in groups]
    available = info.get("MemAvailable")
    if available is not None:
        available = max(0, min([available, *left]))
    swap = info.get("SwapTotal")
    return HostFacts(
        total=total,
        limit=total if physical is not None and total != physical else None,
        available=available,
        own=_numbers_in_kib(root / "proc/self/status").get("RssAnon", 0),
        swap=swap,
        swap_used=None if swap is None else swap - info.get("SwapFree", swap),
        lockable=_lockable(),
        virtual_machine_of_windows="microsoft" in _text(root / "proc/sys/kernel/osrelease").lower(),
    )


def _groups(root: Path) -> list[tuple[int, int]]:
    """Limit and use of the process's control group and its parents."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            tops = [root / "sys/fs/cgroup/memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be the host's, where the group itself is seen as the top.
        parts = Path(path.lstrip("/")).parts
        for top in tops:
            folders = [top.joinpath(*parts[:count]) for count in range(len(parts) + 1)]
            found += [each for folder in folders if (each := _group(folder, *names)) is not None]
    return found


def _group(folder: Path, limit: str, use: str, cached: str) -> tuple[int, int] | None:
    """Limit and use of one group; None without a limit."""
    allowed = _text(folder / limit).strip()
    if not allowed.isdecimal():
        return None
    used = _text(folder / use).strip()
    # Cached files count as used, but can be evicted.
    giving_way = re.search(rf"^{cached} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
    taken = int(used) if used.isdecimal() else 0
    return int(allowed), max(0, taken - (int(giving_way[1]) if giving_way else 0))


def _numbers_in_kib(path: Path) -> dict[str, int]:
    """`Name:  123 kB` lines, in bytes."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", _text(path), re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


def _text(path: Path) -> str:
    """A file's text; empty if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _physical_by_sysconf() -> int | None:
    """Systems without /proc, such as macOS."""
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _lockable() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft
