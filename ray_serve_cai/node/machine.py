"""What this machine, or container, is: addresses, CPUs, memory, shared memory, GPUs. Reads only; sends nothing."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ray_serve_cai import cgroup
from ray_serve_cai.node.address import literal_ip

SAGEMAKER = "/opt/ml/input/config/resourceconfig.json"
"""Where SageMaker tells a training container the hosts of its job."""


@dataclass(frozen=True)
class Machine:
    """Facts that a plan is made from.

    Attributes:
        addresses: IP literals of this machine's interfaces, loopback included.
        names: host names that mean this machine.
        cpus: CPUs the container may use; a fraction of a quota is rounded up.
        memory_bytes: the container's limit, or the machine's memory.
        shm_bytes: size of /dev/shm.
        gpus: NVIDIA devices that processes of this container may use.
        source_ip: the local IP from which a packet to an IP literal would leave; None without a route.
        sagemaker: what stands in the file `SAGEMAKER`; empty where there is none.
    """

    addresses: frozenset[str]
    names: frozenset[str]
    cpus: int
    memory_bytes: int
    shm_bytes: int
    gpus: int
    source_ip: Callable[[str], str | None]
    sagemaker: str = ""

    def is_me(self, host: str) -> bool:
        """Whether a host name or IP literal is this machine's own."""
        return host.lower().rstrip(".") in self.names if literal_ip(host) is None else host in self.addresses

    def primary_ip(self) -> str:
        """The address other machines would reach this one at: the source of the default route."""
        return self.source_ip("192.0.2.1") or self.source_ip("2001:db8::1") or "127.0.0.1"


def inspect(root: Path = Path("/")) -> Machine:
    """Read the facts of the machine this process runs on; ``root`` stands before /proc, /sys and /dev in tests."""
    addresses = frozenset(
        ip
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6) and (ip := literal_ip(address.address.partition("%")[0])) is not None
    )
    total = psutil.virtual_memory().total
    usable = len(os.sched_getaffinity(0))
    shm = os.statvfs(root / "dev/shm") if (root / "dev/shm").is_dir() else None
    return Machine(
        addresses=addresses,
        names=_names(root, addresses),
        cpus=min(cgroup.cpus(root) or usable, usable),
        memory_bytes=min(cgroup.memory(root) or total, total),
        shm_bytes=shm.f_frsize * shm.f_blocks if shm else 0,
        gpus=_gpus(root, os.environ.get("CUDA_VISIBLE_DEVICES")),
        source_ip=source_ip,
        sagemaker=_read(root / SAGEMAKER.lstrip("/")),
    )


def source_ip(destination: str) -> str | None:
    """The local address of the route to an IP literal; connecting a UDP socket only asks the routing table."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((destination, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def _gpus(root: Path, visible: str | None) -> int:
    """What the driver counts, or the device files where its library is not here; no more than CUDA_VISIBLE_DEVICES lets through.

    Ray refuses to offer more than that (ray/_private/accelerators/nvidia_gpu.py).
    """
    there = _counted_by_driver()
    if there is None:
        there = len([entry for entry in (root / "dev").iterdir() if re.fullmatch(r"nvidia\d+", entry.name)])
    if visible is None:
        return there
    named = [] if visible.strip() in ("", "-1", "NoDevFiles") else visible.split(",")
    return min(there, len(named))


def _counted_by_driver() -> int | None:
    """NVML's count (NVML API reference, nvmlDeviceGetCount_v2); None without its library, or where it fails."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    if nvml.nvmlInit_v2() != 0:
        return None
    count = ctypes.c_uint()
    failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    nvml.nvmlShutdown()
    return None if failed else count.value


def _names(root: Path, addresses: frozenset[str]) -> frozenset[str]:
    names = {"localhost", socket.gethostname().lower()}
    for line in _read(root / "etc/hosts").splitlines():
        ip, *aliases = line.partition("#")[0].split() or [""]
        if literal_ip(ip) in addresses:
            names.update(alias.lower() for alias in aliases)
    return frozenset(names)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
