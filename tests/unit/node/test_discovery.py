import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import discovery
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.discovery import NodePlan

GIB, MIB = 1 << 30, 1 << 20

Plan = Callable[..., NodePlan]

TABLE = [
    # environment, role, head, node IP, rule, variables that decided
    ({}, "single", None, "10.0.0.5", "nothing", {}),
    ({"RSCAI_ROLE": ""}, "single", None, "10.0.0.5", "nothing", {}),
    ({"RSCAI_ROLE": "auto"}, "single", None, "10.0.0.5", "nothing", {}),
    ({"MODE": "production"}, "single", None, "10.0.0.5", "nothing", {}),
    ({"RSCAI_NODE_IP": "10.9.9.9"}, "single", None, "10.9.9.9", "nothing", {}),
    ({"RSCAI_NODE_IP": "fd00::/64"}, "single", None, "fd00::5", "nothing", {}),
    ({"RSCAI_ROLE": "single"}, "single", None, "10.0.0.5", "explicit", {"RSCAI_ROLE": "single"}),
    ({"RSCAI_ROLE": "single", "RSCAI_HEAD_ADDRESS": "head"}, "single", None, "10.0.0.5", "explicit", {"RSCAI_ROLE": "single"}),
    ({"RSCAI_ROLE": "head"}, "head", None, "10.0.0.5", "explicit", {"RSCAI_ROLE": "head"}),
    ({"RSCAI_ROLE": " HEAD "}, "head", None, "10.0.0.5", "explicit", {"RSCAI_ROLE": "head"}),
    ({"RSCAI_ROLE": "head", "RSCAI_HEAD_ADDRESS": "far:7000"}, "head", "far:7000", "10.0.0.5", "explicit",
     {"RSCAI_ROLE": "head", "RSCAI_HEAD_ADDRESS": "far:7000"}),
    ({"RSCAI_ROLE": "head", "RSCAI_HEAD_ADDRESS": "127.0.0.1"}, "head", "127.0.0.1:6379", "127.0.0.1", "explicit",
     {"RSCAI_ROLE": "head", "RSCAI_HEAD_ADDRESS": "127.0.0.1"}),
    ({"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "head"}, "worker", "head:6379", None, "explicit",
     {"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "head"}),
    ({"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "10.0.0.9"}, "worker", "10.0.0.9:6379", "10.0.0.5", "explicit",
     {"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "10.0.0.9"}),
    ({"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "[fd00::9]:7000"}, "worker", "[fd00::9]:7000", "fd00::5", "explicit",
     {"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "[fd00::9]:7000"}),
    ({"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "head", "RSCAI_NODE_IP": "10.0.0.6"}, "worker", "head:6379", "10.0.0.6", "explicit",
     {"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "head"}),
    ({"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "10.0.0.5"}, "worker", "10.0.0.5:6379", "10.0.0.5", "explicit",
     {"RSCAI_ROLE": "worker", "RSCAI_HEAD_ADDRESS": "10.0.0.5"}),
    ({"MODE": "HEAD"}, "head", None, "10.0.0.5", "explicit", {"MODE": "head"}),
    ({"MODE": "Worker", "RAY_HEAD_ADDRESS": "head:7"}, "worker", "head:7", None, "explicit", {"MODE": "worker", "RAY_HEAD_ADDRESS": "head:7"}),
    ({"RSCAI_ROLE": "single", "MODE": "head"}, "single", None, "10.0.0.5", "explicit", {"RSCAI_ROLE": "single"}),
    ({"RSCAI_HEAD_ADDRESS": "10.0.0.5"}, "head", "10.0.0.5:6379", "10.0.0.5", "address is mine", {"RSCAI_HEAD_ADDRESS": "10.0.0.5"}),
    ({"RSCAI_HEAD_ADDRESS": "box:7000"}, "head", "box:7000", "10.0.0.5", "address is mine", {"RSCAI_HEAD_ADDRESS": "box:7000"}),
    ({"RSCAI_HEAD_ADDRESS": "BOX.lan."}, "head", "BOX.lan.:6379", "10.0.0.5", "address is mine", {"RSCAI_HEAD_ADDRESS": "BOX.lan."}),
    ({"RSCAI_HEAD_ADDRESS": "localhost"}, "head", "localhost:6379", "10.0.0.5", "address is mine", {"RSCAI_HEAD_ADDRESS": "localhost"}),
    ({"RSCAI_HEAD_ADDRESS": "FD00:0::5"}, "head", "[fd00::5]:6379", "fd00::5", "address is mine", {"RSCAI_HEAD_ADDRESS": "FD00:0::5"}),
    ({"RSCAI_HEAD_ADDRESS": "head"}, "worker", "head:6379", None, "address is mine", {"RSCAI_HEAD_ADDRESS": "head"}),
    ({"RSCAI_HEAD_ADDRESS": "10.0.0.9"}, "worker", "10.0.0.9:6379", "10.0.0.5", "address is mine", {"RSCAI_HEAD_ADDRESS": "10.0.0.9"}),
    ({"RSCAI_HEAD_ADDRESS": "1.2.3.4", "RSCAI_NODE_IP": "1.2.3.4"}, "head", "1.2.3.4:6379", "1.2.3.4", "address is mine",
     {"RSCAI_HEAD_ADDRESS": "1.2.3.4"}),
    ({"RAY_HEAD_ADDRESS": "head", "RAY_NODE_IP": "[fd00::7]"}, "worker", "head:6379", "fd00::7", "address is mine", {"RAY_HEAD_ADDRESS": "head"}),
    ({"RSCAI_HEAD_ADDRESS": "a", "RAY_HEAD_ADDRESS": "b"}, "worker", "a:6379", None, "address is mine", {"RSCAI_HEAD_ADDRESS": "a"}),
]  # fmt: skip


@pytest.mark.parametrize(("env", "role", "head", "node_ip", "rule", "variables"), TABLE, ids=[repr(row[0]) for row in TABLE])
def test_roles(
    make_plan: Plan, env: dict[str, str], role: str, head: str | None, node_ip: str | None, rule: str, variables: dict[str, str]
) -> None:
    plan = make_plan(env)
    assert (plan.role, plan.head and str(plan.head), plan.node_ip, plan.rule, plan.variables) == (role, head, node_ip, rule, variables)


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        ({"RSCAI_ROLE": "wrkr"}, ["RSCAI_ROLE is 'wrkr'", "use head, worker, single or auto"]),
        ({"RSCAI_ROLE": "worker"}, ["this is a worker (RSCAI_ROLE=worker), but no head is named", "set RSCAI_HEAD_ADDRESS"]),
        ({"MODE": "worker"}, ["this is a worker (MODE=worker), but no head is named", "set RSCAI_HEAD_ADDRESS"]),
        ({"RSCAI_HEAD_ADDRESS": "head/x"}, ["RSCAI_HEAD_ADDRESS is 'head/x'", "use host or host:port"]),
        ({"RAY_HEAD_ADDRESS": "head:0"}, ["RAY_HEAD_ADDRESS", "'0' is no port"]),
        ({"RSCAI_NODE_IP": "box"}, ["RSCAI_NODE_IP is 'box'", "use an IP address", "10.0.0.5"]),
        ({"RSCAI_NODE_IP": "10.0.0.0/99"}, ["RSCAI_NODE_IP is '10.0.0.0/99'", "a network such as 10.0.0.0/16"]),
        ({"RSCAI_NODE_IP": "10.1.0.0/16"}, ["where this node has no address, only 10.0.0.5, 127.0.0.1, fd00::5;", "another network"]),
        ({"RSCAI_NODE_IP": "0.0.0.0/0"}, ["where this node has the addresses 10.0.0.5, 127.0.0.1; name one address"]),
        ({"RAY_NODE_IP": "10.0.0"}, ["RAY_NODE_IP is '10.0.0'", "use an IP address"]),
        ({"RSCAI_HOST": "localhost"}, ["RSCAI_HOST is 'localhost'", "0.0.0.0 or 127.0.0.1"]),
        ({"RSCAI_PORT": "80000"}, ["RSCAI_PORT is '80000'", "from 1 to 65535"]),
        ({"RSCAI_PORT": "8002"}, ["port 8002 is wanted for front_door and for status", "change RSCAI_PORT"]),
        ({"RSCAI_SERVE_PORT": "6379"}, ["port 6379 is wanted for serve_http and for gcs"]),
        ({"RSCAI_HEAD_ADDRESS": "box:8265"}, ["port 8265 is wanted for gcs and for dashboard"]),
        ({"RSCAI_STATUS_PORT": "10002"}, ["port 10002", "status"]),
        ({"RSCAI_MIN_NODES": "0"}, ["RSCAI_MIN_NODES is '0'", "from 1"]),
        ({"RSCAI_JOIN_TIMEOUT_S": "5m"}, ["RSCAI_JOIN_TIMEOUT_S is '5m'"]),
        ({"RSCAI_DRAIN_S": "-1"}, ["RSCAI_DRAIN_S is '-1'"]),
        ({"RSCAI_NUM_CPUS": "two"}, ["RSCAI_NUM_CPUS is 'two'"]),
        ({"RSCAI_NUM_GPUS": "all"}, ["RSCAI_NUM_GPUS is 'all'"]),
        ({"RSCAI_MEMORY_BYTES": "4g"}, ["RSCAI_MEMORY_BYTES is '4g'"]),
        ({"RSCAI_OBJECT_STORE_BYTES": "1000"}, ["RSCAI_OBJECT_STORE_BYTES is '1000'", str(80 * MIB)]),
    ],
)
def test_a_value_that_cannot_be_used(make_plan: Plan, env: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(env)
    for part in parts:
        assert part in str(caught.value)


def test_a_port_among_those_of_the_ranks(make_plan: Plan) -> None:
    with pytest.raises(UsageError, match=r"port 8000 is wanted for the ranks of replicas and for front_door; .*RSCAI_ENGINE_PORTS"):
        make_plan({"RSCAI_ENGINE_PORTS": "7990-8010"})
    with pytest.raises(UsageError, match="RSCAI_ENGINE_PORTS is 'many'; use a range of ports"):
        make_plan({"RSCAI_ENGINE_PORTS": "many"})


def test_a_port_among_those_of_rays_workers(make_plan: Plan) -> None:
    with pytest.raises(UsageError, match="10500"):
        make_plan({"RSCAI_PORT": "10500"})


def test_defaults(make_plan: Plan) -> None:
    plan = make_plan()
    assert (plan.min_nodes, plan.join_timeout_s, plan.drain_s, plan.host) == (1, 300, 60, "0.0.0.0")
    assert (plan.ports.front_door, plan.ports.serve_http, plan.ports.status, plan.ports.gcs) == (8000, 8001, 8002, 6379)


def test_everything_that_can_be_set(make_plan: Plan) -> None:
    plan = make_plan(
        {
            "RSCAI_MIN_NODES": "3",
            "RSCAI_JOIN_TIMEOUT_S": "10",
            "RSCAI_DRAIN_S": "0",
            "RSCAI_HOST": "[::]",
            "RSCAI_PORT": "80",
            "RSCAI_SERVE_PORT": "81",
            "RSCAI_STATUS_PORT": "82",
            "RSCAI_HEAD_ADDRESS": "box:7000",
            "RSCAI_NUM_CPUS": "0",
            "RSCAI_NUM_GPUS": "8",
            "RSCAI_MEMORY_BYTES": str(3 * GIB),
            "RSCAI_OBJECT_STORE_BYTES": str(100 * MIB),
        }
    )
    assert (plan.min_nodes, plan.join_timeout_s, plan.drain_s, plan.host) == (3, 10, 0, "::")
    assert (plan.ports.front_door, plan.ports.serve_http, plan.ports.status, plan.ports.gcs) == (80, 81, 82, 7000)
    assert plan.resources == discovery.Resources(0, 8, 3 * GIB, 100 * MIB, None)


@pytest.mark.parametrize(
    ("facts", "env", "expected"),
    [
        pytest.param({}, {}, discovery.Resources(4, 0, 16 * GIB - 512 * MIB - GIB, 512 * MIB, None), id="large"),
        pytest.param({"shm_bytes": 600 * MIB}, {}, discovery.Resources(4, 0, 15 * GIB - 300 * MIB, 300 * MIB, None), id="half of shm"),
        pytest.param({"shm_bytes": 64 * MIB}, {}, discovery.Resources(4, 0, 15 * GIB - 80 * MIB, 80 * MIB, "/tmp"), id="Docker's shm"),
        pytest.param({"shm_bytes": 0}, {}, discovery.Resources(4, 0, 15 * GIB - 80 * MIB, 80 * MIB, "/tmp"), id="no shm"),
        pytest.param({"memory_bytes": GIB}, {}, discovery.Resources(4, 0, GIB, 512 * MIB, None), id="little memory"),
        pytest.param(
            {}, {"RSCAI_OBJECT_STORE_BYTES": str(2 * GIB)}, discovery.Resources(4, 0, 13 * GIB, 2 * GIB, "/tmp"), id="more than shm"
        ),
        pytest.param({"cpus": 2, "gpus": 3}, {}, discovery.Resources(2, 3, 16 * GIB - 512 * MIB - GIB, 512 * MIB, None), id="GPUs"),
    ],
)
def test_resources(make_plan: Plan, facts: dict[str, Any], env: dict[str, str], expected: discovery.Resources) -> None:
    assert make_plan(env, **facts).resources == expected


def test_a_machine_without_routes_is_its_own(make_plan: Plan) -> None:
    assert make_plan(source_ip=lambda destination: None).node_ip == "127.0.0.1"


def test_as_json(make_plan: Plan) -> None:
    shown = json.loads(discovery.as_json(make_plan({"RSCAI_HEAD_ADDRESS": "[fd00::9]"}), ["ray", "start"]))
    assert {"role", "head_address", "node_ip", "rule", "variables", "resources", "ports", "command"} <= set(shown)
    assert (shown["role"], shown["head_address"], shown["node_ip"]) == ("worker", "[fd00::9]:6379", "fd00::5")
    assert shown["command"] == ["ray", "start"]
    assert shown["resources"]["plasma_directory"] == "/dev/shm"
    assert shown["listen"] == "[::]:8000"
    assert json.loads(discovery.as_json(make_plan(), []))["head_address"] is None


VARIABLES = [
    "RSCAI_ROLE", "MODE", "RSCAI_HEAD_ADDRESS", "RAY_HEAD_ADDRESS", "RSCAI_NODE_IP", "RAY_NODE_IP", "RSCAI_HOST", "RSCAI_PORT",
    "RSCAI_SERVE_PORT", "RSCAI_STATUS_PORT", "RSCAI_MIN_NODES", "RSCAI_JOIN_TIMEOUT_S", "RSCAI_DRAIN_S", "RSCAI_NUM_CPUS",
    "RSCAI_NUM_GPUS", "RSCAI_MEMORY_BYTES", "RSCAI_OBJECT_STORE_BYTES",
]  # fmt: skip
VALUES = (
    st.sampled_from(["head", "worker", "single", "auto", "10.0.0.5", "10.0.0.9:6379", "box", "[fd00::5]:80", "::1", "0.0.0.0", "", " "])
    | st.integers(-5, 1 << 40).map(str)
    | st.ip_addresses().map(str)
    | st.text(max_size=30)
)


@given(st.dictionaries(st.sampled_from(VARIABLES), VALUES, max_size=8))
def test_any_environment_is_a_plan_or_a_usage_error(make_plan: Plan, env: dict[str, str]) -> None:
    try:
        plan = make_plan(env)
    except UsageError as error:
        assert any(name in str(error) for name in env)  # noqa: PT017
        return
    assert plan.role in ("head", "worker", "single")
    assert (plan.head is not None) or plan.role != "worker"
    assert plan.resources.memory > 0
    assert plan.resources.object_store >= 75 * MIB
    assert json.loads(discovery.as_json(plan, []))["role"] == plan.role
    assert make_plan(env) == plan


@given(st.ip_addresses(), st.integers(1, 5000))
def test_one_environment_for_all_nodes_makes_one_head(make_plan: Plan, head: object, port: int) -> None:
    env = {"RSCAI_HEAD_ADDRESS": str(Address(str(head), port))}
    others = frozenset({"198.51.100.7"})
    assert make_plan(env, addresses=frozenset({str(head)})).role == "head"
    assert make_plan(env, addresses=others - {str(head)}).role == "worker"
