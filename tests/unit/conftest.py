"""Fakes at the package's own seams: a machine, a manifest, a plan, a free port, a user without rights."""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from ray_serve_cai.node import discovery
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.machine import Machine
from ray_serve_cai.node.manifest import Manifest

settings.register_profile("unit", deadline=None, max_examples=80, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")

GIB = 1 << 30
OURS = ("RSCAI_", "RAY_", "HF_")
STRAYS = ("MODE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the variables of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(OURS) or name in STRAYS:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def make_machine() -> Callable[..., Machine]:
    """A machine named ``box`` at 10.0.0.5; keyword arguments change it."""

    def make(**changes: Any) -> Machine:
        facts: dict[str, Any] = {
            "addresses": frozenset({"127.0.0.1", "10.0.0.5", "fd00::5"}),
            "names": frozenset({"localhost", "box", "box.lan"}),
            "cpus": 4,
            "memory_bytes": 16 * GIB,
            "shm_bytes": 2 * GIB,
            "gpus": 0,
            "source_ip": lambda destination: "fd00::5" if ":" in destination else "10.0.0.5",
        }
        return Machine(**facts | changes)

    return make


@pytest.fixture(scope="session")
def make_plan(make_machine: Callable[..., Machine]) -> Callable[..., NodePlan]:
    """The plan of an environment on the machine of `make_machine`."""

    def make(env: dict[str, str] | None = None, **changes: Any) -> NodePlan:
        return discovery.plan(env or {}, make_machine(**changes))

    return make


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return Manifest(
        schema=1,
        build_id="abc123",
        protocol=1,
        ray="2.60.0",
        python="3.11.7",
        engine="vllm",
        engine_version="0.32.0",
        device="cpu",
    )


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which something listens, on all interfaces."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen(1)
        yield int(listener.getsockname()[1])


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger without handlers; given back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield root
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def without_rights() -> Iterator[None]:
    """Root may read everything; as ``nobody`` even root's tests meet permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
