"""A container's limits, from cgroup v2 and v1 files (docs.kernel.org, admin-guide/cgroup-v2 and cgroup-v1).

Most containers see their own cgroup as the root. Where they share the host's view, as a step of Slurm's does, /proc/self/cgroup says which
one is theirs, and the limits of every one above it count as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" with a number near 2**63."""


def cpus(root: Path) -> int | None:
    """CPUs of the smallest quota that holds for this process (cgroup v2 and v1), rounded up; None where there is none."""
    quotas = [quota for group in _groups(root, "") if (quota := _quota(_words(group / "cpu.max")))]
    for group in _groups(root, "cpu"):
        quota = _quota(_words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us"))
        quotas += [quota] if quota else []
    return max(1, math.ceil(min(quotas))) if quotas else None


def memory(root: Path) -> int | None:
    """The smallest memory limit in bytes that holds for this process (cgroup v2 and v1); None where there is none."""
    files = [group / "memory.max" for group in _groups(root, "")]
    files += [group / "memory.limit_in_bytes" for group in _groups(root, "memory")]
    limits = [int(words[0]) for file in files if (words := _words(file)) and words[0] != "max" and int(words[0]) < _UNLIMITED]
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup of a v1 controller, or the one of v2 for an empty name, and those above it; at least the topmost."""
    top, own = root / "sys/fs/cgroup" / controller, PurePosixPath("/")
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(",") and path.startswith("/") and ".." not in path:
            own = PurePosixPath(path)
    for part in (own, *own.parents):
        yield top / str(part).lstrip("/")


def _quota(words: list[str]) -> float | None:
    """CPUs of quota and period, microseconds; None where there is no limit."""
    if len(words) != 2 or words[0] == "max" or int(words[0]) <= 0 or int(words[1]) <= 0:
        return None
    return int(words[0]) / int(words[1])


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
