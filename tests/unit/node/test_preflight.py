import logging
import os
import socket
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ray_serve_cai.errors import ResourceError
from ray_serve_cai.node import preflight
from ray_serve_cai.node.discovery import NodePlan
from ray_serve_cai.node.ports import Ports

Plan = Callable[..., NodePlan]


def free_ports() -> Ports:
    """A port plan of ports that are free right now."""
    sockets = [socket.socket() for _ in fields(Ports)]
    try:
        for one in sockets:
            one.bind(("0.0.0.0", 0))
        return Ports(*(one.getsockname()[1] for one in sockets))
    finally:
        for one in sockets:
            one.close()


@pytest.fixture
def plan(make_plan: Plan) -> NodePlan:
    return replace(make_plan({"RSCAI_ROLE": "head"}), ports=free_ports())


def test_free_ports_pass(plan: NodePlan, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        preflight.check(plan, "cpu")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("front_door", "set RSCAI_PORT to a free one"),
        ("serve_http", "set RSCAI_SERVE_PORT to a free one"),
        ("status", "set RSCAI_STATUS_PORT to a free one"),
        ("gcs", "set RSCAI_HEAD_ADDRESS to a free one"),
        ("dashboard", "stop what uses it"),
    ],
)
def test_a_port_in_use_is_named_with_its_fix(plan: NodePlan, taken_port: int, name: str, fix: str) -> None:
    with pytest.raises(ResourceError) as caught:
        preflight.check(replace(plan, ports=replace(plan.ports, **{name: taken_port})), "cpu")
    assert str(caught.value) == f"port {taken_port} on 0.0.0.0 ({name}) is in use; {fix}."


def test_a_worker_does_not_mind_what_only_heads_need(plan: NodePlan, taken_port: int) -> None:
    preflight.check(replace(plan, role="worker", ports=replace(plan.ports, gcs=taken_port, front_door=taken_port, dashboard=taken_port)), "cpu")


def test_an_address_that_is_not_here(plan: NodePlan) -> None:
    with pytest.raises(ResourceError, match=r"on 192\.0\.2\.1 \(front_door\) cannot be opened \(Cannot assign.*; set RSCAI_PORT"):
        preflight.check(replace(plan, host="192.0.2.1"), "cpu")


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6 to listen on")
def test_ipv6(plan: NodePlan) -> None:
    preflight.check(replace(plan, host="::1"), "cpu")


@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 80, reason="anybody may open low ports on this machine"
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights away")
@pytest.mark.usefixtures("without_rights")
def test_a_port_that_may_not_be_opened(plan: NodePlan) -> None:
    with pytest.raises(ResourceError, match=r"port 79 .*cannot be opened \(Permission denied\)"):
        preflight.check(replace(plan, ports=replace(plan.ports, front_door=79)), "cpu")


def test_a_small_shm_only_hurts(plan: NodePlan, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        preflight.check(replace(plan, resources=replace(plan.resources, plasma_directory="/tmp")), "cpu")
    assert "start the container with --shm-size 1g" in caplog.text


@pytest.mark.parametrize("role", ["single", "worker"])
def test_a_node_that_serves_needs_what_its_image_computes_on(make_plan: Plan, role: str) -> None:
    env = {"RSCAI_ROLE": role, "RSCAI_HEAD_ADDRESS": "10.0.0.9"} if role == "worker" else {"RSCAI_ROLE": role}
    bare = replace(make_plan(env, gpus=0), ports=free_ports())
    preflight.check(bare, "cpu")
    with pytest.raises(ResourceError, match=r"this image computes on GPUs and this \w+ has none; start the container with --gpus all \(Docker\)"):
        preflight.check(bare, "cuda")
    preflight.check(replace(make_plan(env, gpus=1), ports=free_ports()), "cuda")


def test_a_head_without_gpus_may_lead_workers_that_have_some(make_plan: Plan) -> None:
    preflight.check(replace(make_plan({"RSCAI_ROLE": "head"}, gpus=0), ports=free_ports()), "cuda")
