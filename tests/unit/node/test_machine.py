import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_serve_cai.node import machine
from ray_serve_cai.node.machine import Machine

COUNTED_BY_DRIVER = machine._counted_by_driver


@pytest.fixture(autouse=True)
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_counted_by_driver", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty machine; tests plant files into it."""
    for directory in ("dev/shm", "etc", "sys/fs/cgroup"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def test_a_machine_without_limits(root: Path) -> None:
    here = machine.inspect(root)
    assert here.cpus == len(os.sched_getaffinity(0))
    assert here.memory_bytes == psutil.virtual_memory().total
    assert here.shm_bytes > 0
    assert here.gpus == 0
    assert "127.0.0.1" in here.addresses
    assert {"localhost", socket.gethostname().lower()} <= here.names


def test_a_containers_limits(root: Path) -> None:
    (root / "sys/fs/cgroup/cpu.max").write_text("150000 100000")
    (root / "sys/fs/cgroup/memory.max").write_text("1048576")
    here = machine.inspect(root)
    assert (here.cpus, here.memory_bytes) == (2, 1 << 20)


def test_a_limit_above_the_machines_memory(root: Path) -> None:
    (root / "sys/fs/cgroup/memory.max").write_text(str(1 << 59))
    assert machine.inspect(root).memory_bytes == psutil.virtual_memory().total


def test_no_shared_memory(root: Path) -> None:
    (root / "dev/shm").rmdir()
    assert machine.inspect(root).shm_bytes == 0


def test_gpus_are_counted_by_device(root: Path) -> None:
    for name in ("nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia-modeset", "xnvidia1"):
        (root / "dev" / name).touch()
    assert machine.inspect(root).gpus == 2


class Nvml:
    """NVIDIA's management library, as far as it is asked."""

    def __init__(self, count: int, *, works: bool = True) -> None:
        self._count, self._code = count, 0 if works else 9  # NVML_ERROR_DRIVER_NOT_LOADED
        self.open = 0

    def nvmlInit_v2(self) -> int:
        self.open += not self._code
        return self._code

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = self._count
        return 0

    def nvmlShutdown(self) -> int:
        self.open -= 1
        return 0


@pytest.mark.parametrize(
    ("works", "visible", "gpus"),
    [
        (True, None, 8),
        (True, "0,1,2", 3),
        (True, "GPU-1f,GPU-2e", 2),
        (True, "", 0),
        (True, " -1 ", 0),
        (True, "NoDevFiles", 0),
        (True, "0,1,2,3,4,5,6,7,8", 8),
        (False, None, 1),
        (False, "0,1", 1),
    ],
)
def test_gpus_are_what_the_driver_counts_and_lets_through(
    root: Path, monkeypatch: pytest.MonkeyPatch, works: bool, visible: str | None, gpus: int
) -> None:
    (root / "dev/nvidia0").touch()
    nvml = Nvml(8, works=works)
    monkeypatch.setattr(machine, "_counted_by_driver", COUNTED_BY_DRIVER)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: nvml)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.inspect(root).gpus == gpus
    assert nvml.open == 0


def test_names_of_own_addresses(root: Path) -> None:
    (root / "etc/hosts").write_text("# a comment\n\n127.0.0.1 localhost Me.Lan me # mine\n192.0.2.77 other\nnonsense here\n::1\n")
    names = machine.inspect(root).names
    assert {"me", "me.lan"} <= names
    assert names.isdisjoint({"other", "mine", "here"})


def test_the_real_machine() -> None:
    here = machine.inspect()
    assert here.cpus >= 1
    assert here.memory_bytes > 0
    assert here.primary_ip()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("BOX", True), ("box.lan.", True), ("head", False), ("10.0.0.5", True), ("fd00::5", True), ("10.0.0.9", False)],
)
def test_is_me(make_machine: Callable[..., Machine], host: str, expected: bool) -> None:
    assert make_machine().is_me(host) is expected


@pytest.mark.parametrize(
    ("routes", "expected"), [({"4": "10.0.0.5", "6": "fd00::5"}, "10.0.0.5"), ({"6": "fd00::5"}, "fd00::5"), ({}, "127.0.0.1")]
)
def test_the_primary_address(make_machine: Callable[..., Machine], routes: dict[str, str], expected: str) -> None:
    assert make_machine(source_ip=lambda to: routes.get("6" if ":" in to else "4")).primary_ip() == expected


def test_the_route_to_an_address() -> None:
    assert machine.source_ip("127.0.0.1") == "127.0.0.1"
    assert machine.source_ip("255.255.255.255") is None  # broadcasting needs a permission that nobody asked for
