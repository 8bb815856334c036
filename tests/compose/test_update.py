"""A running cluster is brought to another configuration under load, and no request fails."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import Cluster, Load, run, until

pytestmark = pytest.mark.issue(5)
CLIENTS = 16
ON_TWO_CPUS = {"source": "demo", "cpus_per_replica": 2}
"""A replica fills a node, where each node says that it has two CPUs."""


def config(length: int, **more: Any) -> str:
    return yaml.safe_dump({"models": [ON_TWO_CPUS | {"engine_args": {"max_model_len": length}} | more]})


def deploy(cluster: Cluster, wanted: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "exec", "-i", cluster.ids("head")[0], "ray-serve-cai", "deploy", "--config", "-", *options]
    return subprocess.run(command, input=wanted, capture_output=True, text=True, timeout=300, check=False)


def length(cluster: Cluster) -> int:
    answer = cluster.api.get("/v1/models")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["data"][0]["max_model_len"])


def replicas(cluster: Cluster) -> set[tuple[str, str]]:
    """(container, process id) of each replica."""
    found = set()
    for container in (*cluster.ids("head"), *cluster.ids("worker")):
        listed = run("docker", "exec", container, "ps", "-eo", "pid=,args=").stdout.splitlines()
        found |= {(container, line.split()[0]) for line in listed if "ray::ServeReplica" in line}
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("config"), workers=1) as two_nodes:
        yield two_nodes


def started(directory: Path, workers: int) -> Cluster:
    """Nodes of two CPUs each, with one replica."""
    file, overlay = directory / "config.yaml", directory / "two-cpus.yaml"
    file.write_text(config(2048))
    file.chmod(0o644)
    node = {"environment": {"RSCAI_NUM_CPUS": "2"}}
    overlay.write_text(yaml.safe_dump({"services": {"head": node, "worker": node}}))
    return Cluster(workers, "compose/config.yaml", str(overlay), CONFIG=str(file))


def test_with_room_new_replicas_start_before_old_ones_end(cluster: Cluster, questions: dict[str, str]) -> None:
    cluster.api.wait_ready()
    before = replicas(cluster)
    with Load(cluster.api, CLIENTS, questions) as load:
        until("load", lambda: load.done > CLIENTS, 60)
        start = time.monotonic()
        done = deploy(cluster, config(1024))
        took, served = time.monotonic() - start, load.done
        assert done.returncode == 0, done.stderr
        until("requests after it", lambda: load.done > served + 10 * CLIENTS, 60)
    assert load.failures == []
    assert done.stdout.splitlines()[0] == "demo: all new replicas start before old ones end"
    assert done.stdout.splitlines()[-1] == "done"
    assert length(cluster) == 1024
    until("the old replica is gone", lambda: len(replicas(cluster)) == 1 and not replicas(cluster) & before, 90)
    print(f"updated with room in {took:.1f} s; {load.done} requests, none failed")


@pytest.mark.full
def test_a_plan_changes_nothing(cluster: Cluster) -> None:
    cluster.api.wait_ready()
    before = replicas(cluster)
    planned = deploy(cluster, config(512), "--dry-run", "--json")
    assert json.loads(planned.stdout) == {
        "state": "planned",
        "plan": {"demo": "all new replicas start before old ones end"},
        "error": "",
    }
    assert deploy(cluster, config(length(cluster))).stdout.splitlines() == ["demo: unchanged", "done"]
    assert replicas(cluster) == before


@pytest.mark.full
def test_more_copies_restart_none(cluster: Cluster, questions: dict[str, str]) -> None:
    cluster.api.wait_ready()
    before = replicas(cluster)
    with Load(cluster.api, CLIENTS, questions) as load:
        done = deploy(cluster, config(length(cluster), replicas=2))
    assert done.stdout.splitlines()[0] == "demo: 2 replicas, changed in place", done.stderr
    assert load.failures == []
    assert before < replicas(cluster)
    assert cluster.api.health()["models"][0]["replicas"] == 2


@pytest.mark.full
def test_without_room_one_replica_after_the_other_is_replaced(cluster: Cluster, questions: dict[str, str]) -> None:
    cluster.api.wait_ready()
    assert deploy(cluster, config(length(cluster), replicas=2)).returncode == 0
    before = replicas(cluster)
    assert len(before) == 2
    with Load(cluster.api, CLIENTS, questions) as load:
        start = time.monotonic()
        done = deploy(cluster, config(1536, replicas=2))
        took, served = time.monotonic() - start, load.done
        until("requests after it", lambda: load.done > served + 10 * CLIENTS, 60)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "demo: no room for more: one replica after the other ends and is replaced")
    assert load.failures == []
    assert not before & replicas(cluster)
    assert length(cluster) == 1536
    print(f"updated without room in {took:.1f} s; {load.done} requests, none failed")


@pytest.mark.full
def test_an_update_that_fails_is_undone(cluster: Cluster, questions: dict[str, str]) -> None:
    cluster.api.wait_ready()
    before = length(cluster)
    assert deploy(cluster, config(before, replicas=2)).returncode == 0
    with Load(cluster.api, CLIENTS, questions) as load:
        done = deploy(cluster, config(1_000_000, replicas=2))
        assert done.returncode == 78, done
        assert "max_model_len (1000000)" in done.stderr
        assert done.stderr.endswith("the former configuration stays.\n")
        until("both replicas again", lambda: cluster.api.health()["models"][0]["replicas"] == 2, 120)
    assert load.failures == []
    assert length(cluster) == before


@pytest.mark.full
def test_an_impossible_configuration_is_refused_at_once(cluster: Cluster) -> None:
    done = deploy(cluster, "models: [{source: demo, replica: 2}]")
    assert (done.returncode, done.stderr) == (
        78,
        "ray-serve-cai: error: standard input: models[0].replica: unknown key; did you mean replicas?\n",
    )
    done = deploy(cluster, "models: [{source: demo, name: other}]")
    assert done.returncode == 78
    assert "the cluster serves demo, and the new configuration has other" in done.stderr


@pytest.mark.full
def test_one_replica_without_room_is_refused_unless_a_pause_is_accepted(tmp_path: Path, questions: dict[str, str]) -> None:
    with started(tmp_path, workers=0) as node:
        node.api.wait_ready()
        refused = deploy(node, config(1024))
        assert refused.returncode == 71
        assert "model 'demo' has no room for a new replica while the old one runs: needs 1 node with 2 CPUs; " in refused.stderr
        assert "the cluster has 1 with 2, of which is free: 1 with none; add nodes, or lower cpus_per_replica; or accept" in refused.stderr
        assert length(node) == 2048
        start = time.monotonic()
        done = deploy(node, config(1024), "--allow-downtime")
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "demo: no room for more: 1 replica must end before new ones start"), (
            done.stderr
        )
        print(f"updated with a pause in {time.monotonic() - start:.1f} s")
        until("answers", lambda: length(node) == 1024, 60)
        run("docker", "restart", *node.ids("head"))
        node.api.wait_ready()
        assert length(node) == 1024, "the update outlives the head"
