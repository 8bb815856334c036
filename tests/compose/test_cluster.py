"""A real cluster from the product's own compose file: join, scale, faults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import Cluster, Load, Node, run, until

pytestmark = pytest.mark.issue(2)
QUESTION = "What is ray-serve-cai?"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=1) as started:
        started.api.wait_ready()
        yield started


def alive(cluster: Cluster) -> int:
    return int(cluster.api.health()["nodes"]["alive"])


def test_head_and_worker_serve(cluster: Cluster, questions: dict[str, str]) -> None:
    assert alive(cluster) == 2
    assert cluster.api.ask(QUESTION) == questions[QUESTION]
    assert cluster.worker_with_replica() == cluster.ids("worker")[0]


def test_healthy_by_role(cluster: Cluster) -> None:
    for container in cluster.ids("head") + cluster.ids("worker"):
        until(
            "healthy",
            lambda id=container: run("docker", "inspect", "--format", "{{.State.Health.Status}}", id).stdout.strip() == "healthy",
            60,
        )


def test_a_worker_without_the_token_is_refused(cluster: Cluster) -> None:
    options = ("--rm", "--network", f"{cluster.project}_default", "-e", "RSCAI_HEAD_ADDRESS=head", "-e", "RSCAI_TOKEN=0123456789abcdef")
    done = run("docker", "run", *options, "ray-serve-cai:vllm-cpu", "ray-serve-cai", "node", "--once", check=False)
    assert done.returncode == 77
    assert "refused this node's token" in done.stderr


def test_scaling_up_loses_no_request(cluster: Cluster) -> None:
    before = cluster.ids("head") + cluster.ids("worker")
    with Load(cluster.api) as load:
        cluster.compose("up", "--detach", "--no-build", "--scale", "worker=3")
        until("four nodes", lambda: alive(cluster) == 4, 90)
        served = load.done
        until("requests after joining", lambda: load.done > served + 10, 60)
    assert load.failures == []
    assert set(before) <= set(cluster.ids("head") + cluster.ids("worker"))


@pytest.mark.full
def test_killed_worker(cluster: Cluster, questions: dict[str, str], record_property: pytest.RecordProperty) -> None:
    cluster.compose("up", "--detach", "--no-build", "--scale", "worker=3")
    until("four nodes", lambda: alive(cluster) == 4, 90)
    victim = cluster.worker_with_replica()
    start = time.monotonic()
    run("docker", "kill", "--signal", "KILL", victim)
    until("the cluster says so", lambda: alive(cluster) == 3, 60)
    noticed = time.monotonic() - start
    cluster.api.wait_ready()
    assert cluster.api.ask(QUESTION) == questions[QUESTION]
    print(f"killed worker: noticed after {noticed:.1f} s, serving again after {time.monotonic() - start:.1f} s")
    run("docker", "start", victim)
    until("it is back", lambda: alive(cluster) == 4, 90)


@pytest.mark.full
def test_stopped_worker_drains() -> None:
    """Its replica's successor starts first, on the head if need be, and no request fails meanwhile."""
    with Cluster(workers=1, DRAIN_S="200", STOP_GRACE="240s") as cluster:
        cluster.api.wait_ready()
        victim = cluster.worker_with_replica()
        with Load(cluster.api) as load:
            run("docker", "stop", "--time", "240", victim, timeout=260)
            served = load.done
            until("requests afterwards", lambda: load.done > served + 10, 60)
        assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", victim).stdout.strip() == "0"
        assert load.failures == []


@pytest.mark.full
def test_late_head(questions: dict[str, str]) -> None:
    with Cluster(workers=2, RSCAI_TEST="late") as late:
        late.compose("stop", "--timeout", "5", "head")
        late.compose("restart", "--timeout", "5", "worker")
        time.sleep(5)  # the fault itself: five seconds without a head
        late.compose("start", "head")
        late.api.wait_ready()
        assert alive(late) == 3
        assert late.api.ask(QUESTION) == questions[QUESTION]


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        {"user": "54321:0"},
        {"user": "4711:0", "read_only": True, "tmpfs": ("/tmp", "/var/lib/ray-serve-cai"), "cap_drop": ["ALL"]},
    ],
    ids=["any uid", "read-only root"],
)
def test_serves_as_any_user(options: dict[str, Any], questions: dict[str, str]) -> None:
    with Node(shm_size="1g", **options) as node:
        node.api.wait_ready()
        assert node.api.ask(QUESTION) == questions[QUESTION]


@pytest.mark.full
def test_weights_that_do_not_fit(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = tmp_path_factory.mktemp("large")
    model.chmod(0o755)
    (model / "config.json").write_text("{}")
    with (model / "model.safetensors").open("wb") as weights:
        weights.truncate(900 << 30)  # sparse: no disk is used
    with Node(volumes=[(str(model), "/models/large", "ro")], env={"RSCAI_MODEL": "/models/large"}) as node:
        assert node.wait_exit(240) == 71
        assert "900.0 GiB of weights" in node.logs()
