"""A node that is told to stop takes no stream along, whatever of a replica it holds, and whether or not there is room elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import Cluster, Streams, run, until

pytestmark = [pytest.mark.issue(6), pytest.mark.full]


def model(nodes: int) -> dict[str, Any]:
    over = {"tensor_parallel_size": nodes, "nodes_per_replica": nodes, "engine_args": {"max_model_len": 2048}}
    return {"name": "demo", "source": "demo", "cpus_per_replica": 0.5} | (over if nodes > 1 else {})


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """Of so many workers, with a replica over so many nodes; the head offers CPUs or not."""
    workers, nodes, head_cpus = request.param
    config, overlay = tmp_path / "config.yaml", tmp_path / "drain.yaml"
    config.write_text(yaml.safe_dump({"models": [model(nodes)]}))
    config.chmod(0o644)
    tmp_path.chmod(0o755)
    overlay.write_text(yaml.safe_dump({"services": {"head": {"environment": {"RSCAI_NUM_CPUS": head_cpus}}}}))
    drain = {"DRAIN_S": "240", "STOP_GRACE": "280s"}
    with Cluster(workers, "compose/config.yaml", str(overlay), CONFIG=str(config), **drain) as started:
        started.api.wait_ready(480)
        yield started


def holder(cluster: Cluster, what: str) -> str:
    """Container of the worker that has a replica's first rank ("replicas"), or only further ones ("shards")."""
    ips = {node["ip"] for node in cluster.nodes() if node["alive"] and node[what] and node["role"] == "worker"}
    return next((worker for worker in cluster.ids("worker") if cluster.ip(worker) in ips), "")


def stop(container: str) -> float:
    began = time.monotonic()
    run("docker", "stop", "--time", "280", container, timeout=300)
    assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip() == "0"
    return time.monotonic() - began


@pytest.mark.parametrize("cluster", [pytest.param((2, 2, 2), id="")], indirect=True)
def test_only_a_shard_here(cluster: Cluster) -> None:
    """A successor starts on the other nodes first; no client sees an error."""
    victim = until("a worker with a shard", lambda: holder(cluster, "shards"), 30)
    with Streams(cluster.api, 8) as streams:
        until("streams", lambda: len(streams.whole) >= 8, 120)
        took = stop(victim)
        after = time.monotonic()
        until("streams afterwards", lambda: streams.whole[-1:] > [after + 2], 120)
    print(f"SIGTERM of a worker with a shard under 8 streams: gone after {took:.1f} s, {len(streams.whole)} whole, {streams.cut} cut")
    assert streams.cut == []


@pytest.mark.parametrize("cluster", [pytest.param((1, 2, 2), id="two-nodes-of-two"), pytest.param((1, 1, 0), id="the-only-node")], indirect=True)
def test_no_room_elsewhere(cluster: Cluster) -> None:
    """What has begun ends, and what comes then is told to come again; what came in the very moment waits for a replica, in Ray's proxy."""
    with Streams(cluster.api, 8) as streams:
        until("streams", lambda: len(streams.whole) >= 8, 120)
        took = stop(cluster.ids("worker")[0])
        body = {"model": "demo", "prompt": "a"}
        answer = until("a refusal", lambda: (got := cluster.api.post("/v1/completions", body)).status_code == 503 and got, 30)
        assert int(answer.headers["retry-after"]) > 0
    print(f"SIGTERM of a worker without room elsewhere under 8 streams: gone after {took:.1f} s, {len(streams.broken)} broken")
    assert streams.broken == []
    assert all(said.startswith(("503", "ReadTimeout")) for said in streams.cut), streams.cut
    run("docker", "start", cluster.ids("worker")[0])
    cluster.api.wait_ready(480)


@pytest.mark.parametrize("cluster", [pytest.param((1, 1, 2), id="")], indirect=True)
def test_the_whole_cluster(cluster: Cluster) -> None:
    """What has begun ends, though the model is on a worker that is told to stop together with the head."""
    with Streams(cluster.api, 8) as streams:
        until("streams", lambda: len(streams.whole) >= 8, 120)
        began = time.monotonic()
        cluster.compose("stop", "--timeout", "280")
    print(f"SIGTERM of all nodes under 8 streams: gone after {time.monotonic() - began:.1f} s, {len(streams.broken)} broken")
    assert streams.broken == []
    for container in (*cluster.ids("head"), *cluster.ids("worker")):
        assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout.strip() == "0"
