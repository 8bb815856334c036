"""What ``docker inspect`` says, as a container with a front door."""

from __future__ import annotations

from typing import Any

import pytest

from ray_serve_cai.node.address import Address
from ray_serve_cai.upgrade import docker, look

pytestmark = pytest.mark.issue(6)


def inspected(
    mode: str = "shop_default", *env: str, network: dict[str, Any] | None = None, policy: tuple[str, int] = ("", 0)
) -> dict[str, Any]:
    return {
        "Id": "1",
        "Image": "sha256:a",
        "Config": {"Image": "cai:a", "Env": [*env] or None, "Labels": {"com.docker.compose.service": "head"}},
        "State": {"Status": "restarting", "ExitCode": 75},
        "HostConfig": {"NetworkMode": mode, "RestartPolicy": {"Name": policy[0], "MaximumRetryCount": policy[1]}},
        "NetworkSettings": network or {},
    }


@pytest.mark.parametrize(
    ("found", "door"),
    [
        (inspected("host"), Address("127.0.0.1", 8000)),
        (inspected("host", "RSCAI_PORT=9000", "RSCAI_HOST=0.0.0.0"), Address("127.0.0.1", 9000)),
        (inspected("host", "RSCAI_HOST=10.0.0.5"), Address("10.0.0.5", 8000)),
        (inspected(network={"Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}]}}), Address("127.0.0.1", 80)),
        (inspected(network={"Ports": {"8000/tcp": [{"HostIp": "::", "HostPort": "80"}]}}), Address("127.0.0.1", 80)),
        (inspected(network={"Ports": {"8000/tcp": [{"HostIp": "10.0.0.5", "HostPort": "80"}]}}), Address("10.0.0.5", 80)),
        (inspected(network={"Ports": {"8000/tcp": None}, "Networks": {"a": {"IPAddress": "172.18.0.2"}}}), Address("172.18.0.2", 8000)),
        (inspected(network={"Ports": None, "Networks": {"a": {"IPAddress": ""}}}), None),
        (inspected(), None),
    ],
)
def test_the_front_door(found: dict[str, Any], door: Address | None) -> None:
    container = docker.of_inspection(found)
    assert container.door == door
    assert container.running


@pytest.mark.parametrize(
    ("policy", "words"), [(("", 0), "no"), (("unless-stopped", 0), "unless-stopped"), (("on-failure", 3), "on-failure:3")]
)
def test_a_restart_policy_as_the_command_takes_it(policy: tuple[str, int], words: str) -> None:
    assert docker.of_inspection(inspected(policy=policy)).restart_policy == words


def test_a_head_that_can_be_asked_nowhere() -> None:
    assert look.health_of(docker.of_inspection(inspected()))[1]["phase"] == "unreachable"


@pytest.mark.parametrize(
    ("environment", "role"),
    [
        ({"RSCAI_ROLE": "Head"}, "head"),
        ({"RSCAI_ROLE": "auto", "RSCAI_HEAD_ADDRESS": "head"}, "worker"),
        ({"RSCAI_HEAD_ADDRESS": "head"}, "worker"),
        ({"RSCAI_ROLE": None}, None),
        (None, None),
    ],
)
def test_which_services_are_nodes(environment: dict[str, str | None] | None, role: str | None) -> None:
    assert look.nodes({"services": {"one": {"environment": environment}}}) == ({"one": role} if role else {})
