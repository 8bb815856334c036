from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.node.address import Address
from ray_serve_cai.node.command import UNKNOWN_IP, gcs_address, node_labels, ray_start
from ray_serve_cai.node.discovery import NodePlan, Resources

Plan = Callable[..., NodePlan]
ENGINES = ["vllm"]
RESOURCES = Resources(cpus=2, gpus=1, memory=3 << 30, object_store=100 << 20, plasma_directory=None)


def test_a_head(make_plan: Plan) -> None:
    plan = replace(make_plan({"RSCAI_ROLE": "head"}), resources=RESOURCES)
    assert ray_start(plan, ENGINES, "10.0.0.5") == [
        "ray",
        "start",
        "--head",
        "--port=6379",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        "--dashboard-port=8265",
        "--ray-client-server-port=10001",
        "--node-ip-address=10.0.0.5",
        "--num-cpus=2",
        "--num-gpus=1",
        "--memory=3221225472",
        "--object-store-memory=104857600",
        "--node-manager-port=6380",
        "--object-manager-port=6381",
        "--runtime-env-agent-port=6382",
        "--dashboard-agent-grpc-port=6383",
        "--dashboard-agent-listen-port=52365",
        "--metrics-export-port=6384",
        "--min-worker-port=10002",
        "--max-worker-port=10999",
        "--labels=rscai/role=head,rscai/engine.vllm=true",
        "--disable-usage-stats",
        "--block",
    ]


@pytest.mark.parametrize(
    ("env", "starts", "label"),
    [
        ({}, ["--head", "--port=6379"], "head"),
        ({"RSCAI_ROLE": "single"}, ["--head", "--port=6379"], "head"),
        ({"RSCAI_ROLE": "head", "RSCAI_HEAD_ADDRESS": "box:7000"}, ["--head", "--port=7000"], "head"),
        ({"RSCAI_HEAD_ADDRESS": "far:7000"}, ["--address=far:7000"], "worker"),
        ({"RSCAI_HEAD_ADDRESS": "[fd00::9]:7000"}, ["--address=[fd00::9]:7000"], "worker"),
    ],
)
def test_roles(make_plan: Plan, env: dict[str, str], starts: list[str], label: str) -> None:
    line = ray_start(make_plan(env), ENGINES, "10.0.0.5")
    assert line[2 : 2 + len(starts)] == starts
    assert f"--labels=rscai/role={label},rscai/engine.vllm=true" in line
    assert ("--head" in line) == (label == "head")


def test_an_address_not_known_yet_is_shown_as_such(make_plan: Plan) -> None:
    assert f"--node-ip-address={UNKNOWN_IP}" in ray_start(make_plan({"RSCAI_HEAD_ADDRESS": "far"}), ENGINES, None)


def test_a_small_shm(make_plan: Plan) -> None:
    assert "--plasma-directory=/tmp" in ray_start(make_plan(shm_bytes=64 << 20), ENGINES, "10.0.0.5")


def test_every_option_is_said_once(make_plan: Plan) -> None:
    options = [word.partition("=")[0] for word in ray_start(make_plan(shm_bytes=0), ENGINES, "10.0.0.5")]
    assert len(set(options)) == len(options)


def test_every_port_of_ray_is_in_the_line(make_plan: Plan) -> None:
    plan = make_plan()
    values = {word.partition("=")[2] for word in ray_start(plan, ENGINES, "10.0.0.5")}
    not_rays = {"front_door", "serve_http", "status", "haproxy_metrics", "haproxy_stats", "serve_fallback", "autoscaler_metrics", "dashboard_metrics"}
    for field in fields(plan.ports):
        assert (str(getattr(plan.ports, field.name)) in values) == (field.name not in not_rays), field.name


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, Address("10.0.0.5", 6379)),
        ({"RSCAI_ROLE": "head", "RSCAI_HEAD_ADDRESS": "box:7000"}, Address("10.0.0.5", 7000)),
        ({"RSCAI_HEAD_ADDRESS": "far:7000"}, Address("far", 7000)),
    ],
)
def test_where_the_gcs_is(make_plan: Plan, env: dict[str, str], expected: Address) -> None:
    assert gcs_address(make_plan(env), "10.0.0.5") == expected


def test_ray_knows_every_option(make_plan: Plan) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="ray is not installed, so its options cannot be asked")
    known = {name for parameter in scripts.start.params for name in (*parameter.opts, *parameter.secondary_opts)}
    lines = [ray_start(make_plan(env, shm_bytes=0), ENGINES, None) for env in ({}, {"RSCAI_HEAD_ADDRESS": "far"})]
    assert {word.partition("=")[0] for line in lines for word in line[2:]} <= known


def test_a_node_says_by_labels_what_it_can_run(make_plan: Plan) -> None:
    assert "--labels=rscai/role=head,rscai/engine.echo=true,rscai/engine.vllm=true" in ray_start(make_plan(), ["echo", "vllm"], None)
    assert "--labels=rscai/role=worker" in ray_start(make_plan({"RSCAI_HEAD_ADDRESS": "far"}), [], None)
    assert node_labels("single", ["vllm"]) == {"rscai/role": "head", "rscai/engine.vllm": "true"}


def test_ray_takes_the_labels_of_any_engine_name() -> None:
    validation = pytest.importorskip("ray._private.label_utils", reason="ray is not installed, so it cannot be asked", exc_type=ImportError)
    for name in ("a", "a" * 42, "my-engine.v2_x"):
        validation.validate_node_labels(node_labels("worker", [EngineInfo(name, "", "a:b", "a:b", "d").name]))
