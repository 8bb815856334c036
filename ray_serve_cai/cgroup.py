"""A container's limits, from cgroup v2 and v1 files (docs.kernel.org, admin-guide/cgroup-v2 and cgroup-v1)."""

from __future__ import annotations

import math
from pathlib import Path

_UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number near 2**63."""


def cpus(root: Path) -> int | None:
    """CPUs of the container's quota (cgroup v2, then v1), rounded up; None where there is none."""
    v2 = _words(root / "sys/fs/cgroup/cpu.max")
    quota, period = v2 if len(v2) == 2 else ("max", "0")
    if quota == "max":
        v1 = root / "sys/fs/cgroup/cpu"
        quota = next(iter(_words(v1 / "cpu.cfs_quota_us")), "-1")
        period = next(iter(_words(v1 / "cpu.cfs_period_us")), "0")
    if int(quota) <= 0 or int(period) <= 0:
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def memory(root: Path) -> int | None:
    """The container's memory limit in bytes (cgroup v2, then v1); None where there is none."""
    for file in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        words = _words(root / file)
        if words and words[0] != "max" and int(words[0]) < _UNLIMITED:
            return int(words[0])
    return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
