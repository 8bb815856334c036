"""``ray-serve-cai doctor`` on real containers: a healthy head and worker, and nodes that are broken in one way each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import IMAGE, Cluster, run

pytestmark = pytest.mark.issue(6)
WORKER = ("-e", "RSCAI_ROLE=worker", "-e", "RSCAI_HEAD_ADDRESS=head")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(workers=1) as started:
        started.api.wait_ready()
        yield started


def findings(*command: str, code: int) -> dict[str, dict[str, Any]]:
    done = run(*command, "ray-serve-cai", "doctor", "--json", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return {found["check"]: found for found in json.loads(done.stdout)}


def beside(cluster: Cluster, *options: str) -> tuple[str, ...]:
    """A container in the cluster's network that has its token, and enough of all, unless ``options`` say otherwise."""
    given = ("--network", f"{cluster.project}_default", "--volume", f"{cluster.project}_state:/var/lib/ray-serve-cai")
    enough = () if any(word.startswith("--shm-size") for word in options) else ("--shm-size", "1g")
    return ("docker", "run", "--rm", *given, *enough, *options, IMAGE)


@pytest.mark.full
def test_healthy_nodes(cluster: Cluster) -> None:
    for service in ("head", "worker"):
        found = findings("docker", "exec", cluster.ids(service)[0], code=0)
        assert [one for one in found.values() if one["level"] == "error"] == []
        assert found["role"]["fact"].startswith(f"{service} by rule 'explicit'")
        assert found["shm"]["level"] == found["token"]["level"] == "ok"
        assert (found["ports"]["level"], found["ports"]["fact"]) == ("skipped", "a launcher runs on this node and has them")
    assert found["admission"]["fact"] == "token, versions and address fit; the cluster has 2 nodes"
    assert found["clock"]["level"] == found["DNS"]["level"] == found["MTU"]["level"] == "ok"
    assert "Gbit/s over TCP" in found["throughput"]["fact"]
    print(f"between two containers: {found['throughput']['fact']}, {found['MTU']['fact']}")


BROKEN = {
    "small shm": (("--shm-size=64m", *WORKER), 0, "shm", "warning", "/dev/shm has 64 MiB", "start the container with --shm-size 1g"),
    "few files": (("--ulimit", "nofile=4096:4096", *WORKER), 0, "open files", "warning", "4096 at most", "--ulimit nofile=65536:65536"),
    "another token": (
        (*WORKER, "-e", "RSCAI_TOKEN=0123456789abcdef"), 71, "admission", "error", "refused this node's token", "the same RSCAI_TOKEN",
    ),
    "no such head": (
        (*WORKER, "-e", "RSCAI_HEAD_ADDRESS=nobody"), 71, "DNS", "error", "'nobody' does not resolve", "check the name, and the container's DNS",
    ),
    "closed port": (
        (*WORKER, "-e", "RSCAI_STATUS_PORT=8102"), 71, "peer", "error", "nothing answers on", "that TCP port 8102 is open between the nodes",
    ),
    "no model": (
        ("-e", "RSCAI_MODEL=/models/none"), 71, "models", "error", "'/models/none' does not exist on this node", "mount it at the same path on every node",
    ),
    "wrong arguments": (("-e", "RSCAI_ENGINE_ARGS={nonsense"), 71, "models", "error", "RSCAI_ENGINE_ARGS is not JSON", "use for example"),
    "no cache": (
        ("--user", "4711:4711", "--read-only", "--tmpfs", "/tmp", "-e", "HF_HOME=/cache", "-e", "RSCAI_STATE_DIR=/tmp"), 0, "disk", "warning",
        "the model cache /cache/hub is not writable for uid 4711", "mount a volume there, or name another with HF_HOME",
    ),
    "host's port": (("--network=host", "-e", "RSCAI_PORT={taken}"), 71, "ports", "error", "port {taken} on 0.0.0.0 (front_door) is in use", "set RSCAI_PORT"),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", BROKEN)
def test_broken_nodes(cluster: Cluster, name: str) -> None:
    """Each fault is found, with its fix; and nothing else is called an error."""
    options, code, check, level, fact, fix = BROKEN[name]
    taken = str(cluster.port)
    given = [word.format(taken=taken) if "{taken}" in word else word for word in options]
    command = beside(cluster, *given) if "--network=host" not in given else ("docker", "run", "--rm", "--shm-size", "1g", *given, IMAGE)
    found = findings(*command, code=code)
    assert (found[check]["level"], fact.replace("{taken}", taken) in found[check]["fact"]) == (level, True), found[check]
    assert fix in found[check]["fix"]
    assert [one["check"] for one in found.values() if one["level"] == "error"] == ([check] if level == "error" else [])


def test_for_people() -> None:
    """A table that ends with one sentence; the fix stands under what it mends."""
    done = run("docker", "run", "--rm", "-e", "RSCAI_MODEL=/models/none", IMAGE, "ray-serve-cai", "doctor", check=False)
    assert done.returncode == 71
    lines = done.stdout.splitlines()
    number = next(number for number, line in enumerate(lines) if line.startswith("error    models"))
    assert lines[number + 1].strip() == "fix: mount it at the same path on every node"
    assert lines[-1] == "this node cannot serve: models"
