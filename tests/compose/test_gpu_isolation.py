"""Two models share nodes of four GPUs each: every process of an engine sees its own share of them, and nobody else's.

No GPU is needed: Ray hands out what a node says it has (RSCAI_NUM_GPUS), and vLLM's CPU build does not look at what it was given.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.containers import Cluster, run

pytestmark = [pytest.mark.issue(5), pytest.mark.full]
GPUS = 4
SHARES = {1: {"a": 2, "b": 2}, 2: {"a": 1, "b": 2}}
"""Nodes of a replica -> model -> its GPUs, and so its ranks, on each of them."""
EAGER = {"max_model_len": 2048, "dtype": "bfloat16", "enforce_eager": True}
TWO = {"device_ids": "0,1"}
"""With several nodes vLLM takes the number of its devices for the ranks of one; where torch finds no GPU that is 1, unless it is told."""
CORE, WORKER, GUARDIAN, CHILD = "VLLM::EngineCore", "VLLM::Worker", "ray_serve_cai.engines.shard", "ray_serve_cai.engines.shard engine"
_ACTORS = """
import json, logging, ray
ray.init(address="auto", logging_level=logging.ERROR)
from ray.util.state import list_actors
nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
for one in list_actors(detail=True):
    if one.state == "ALIVE" and (one.class_name == "Shard" or one.class_name.startswith("ServeReplica:")):
        print(json.dumps([one.class_name, one.pid, nodes[one.node_id], one.placement_group_id]))
"""
_PROCESSES = """
import glob, json, os, psutil

def pipes(pattern):
    found = set()
    for link in glob.glob(pattern):
        try:
            found.add(os.readlink(link))
        except OSError:
            pass
    return {one for one in found if one.startswith("pipe:")}

writers = {pipe: one.pid for one in psutil.process_iter() if "ray::Shard" in " ".join(one.cmdline()) for pipe in pipes(f"/proc/{one.pid}/fd/*")}
for one in psutil.process_iter():
    try:
        starter = next((writers[pipe] for pipe in pipes(f"/proc/{one.pid}/fd/0") if pipe in writers), one.ppid())
        print(json.dumps([one.pid, starter, " ".join(one.cmdline()), one.environ().get("CUDA_VISIBLE_DEVICES")]))
    except psutil.Error:
        pass
"""
"""A shard's guardian is nobody's child, so that Ray does not kill it with the actor; it reads from the actor that started it."""


@dataclass(frozen=True)
class Process:
    """A process, and its CUDA_VISIBLE_DEVICES as it was started."""

    pid: int
    parent: int
    command: str
    visible: str | None


@dataclass(frozen=True)
class Share:
    """What one actor of a model, a replica or a shard, has started on one node, and what that has started."""

    model: str
    kind: str
    container: str
    processes: tuple[Process, ...]

    @property
    def gpus(self) -> frozenset[int]:
        """The GPUs that its processes see, all of them the same."""
        seen = {process.visible for process in self.processes}
        assert len(seen) == 1, self
        ids = [int(number) for number in (seen.pop() or "none").split(",")]
        assert len(ids) == len(set(ids)), self
        return frozenset(ids)


def inside(container: str, script: str) -> list[list[Any]]:
    """The JSON lines that a script prints in a container."""
    token = ("-e", "RAY_AUTH_MODE=token", "-e", "RAY_AUTH_TOKEN_PATH=/tmp/ray-serve-cai/ray-token")
    printed = run("docker", "exec", *token, container, "python3", "-c", script).stdout
    return [json.loads(line) for line in printed.splitlines() if line.startswith("[")]


def shares(cluster: Cluster) -> list[Share]:
    """Each actor's share. What Ray sets in an actor's own process is not in its /proc entry; what that process starts inherits it."""
    containers = {cluster.ip(container): container for container in (*cluster.ids("head"), *cluster.ids("worker"))}
    everywhere = {container: [Process(*row) for row in inside(container, _PROCESSES)] for container in containers.values()}
    actors = inside(cluster.ids("head")[0], _ACTORS)
    models = {group: kind.split(":")[1] for kind, _, _, group in actors if kind != "Shard"}  # a replica and its shards share a group
    return [
        Share(
            models[group] if kind == "Shard" else kind.split(":")[1],
            kind.split(":")[0],
            containers[ip],
            tuple(below(pid, everywhere[containers[ip]])),
        )
        for kind, pid, ip, group in actors
    ]


def below(pid: int, processes: list[Process]) -> Iterator[Process]:
    """What a process has started, and what that has started."""
    for process in processes:
        if process.parent == pid:
            yield process
            yield from below(process.pid, processes)


def parts(share: Share) -> list[str]:
    """The parts of an engine among a share's processes."""
    names = (CORE, WORKER, CHILD, GUARDIAN)
    found = (next((name for name in names if name in process.command), "") for process in share.processes)
    return sorted(name for name in found if name)


@pytest.fixture(scope="module", params=[pytest.param(1, id="in-a-node"), pytest.param(2, id="over-two-nodes")])
def nodes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def cluster(nodes: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("gpus")
    config, overlay = folder / "config.yaml", folder / "gpus.yaml"
    models = [
        {
            "name": name,
            "source": "demo",
            "device": "cuda",
            "tensor_parallel_size": share * nodes,
            "nodes_per_replica": nodes,
            "cpus_per_replica": 0.5,
            "engine_args": EAGER | (TWO if nodes > 1 and share == 2 else {}),
        }
        for name, share in SHARES[nodes].items()
    ]
    config.write_text(yaml.safe_dump({"models": models}))
    config.chmod(0o644)
    offered = {"environment": {"RSCAI_NUM_GPUS": GPUS}}
    overlay.write_text(yaml.safe_dump({"services": {"head": offered, "worker": offered}}))
    with Cluster(nodes - 1, "compose/config.yaml", str(overlay), CONFIG=str(config)) as started:
        started.api.wait_ready(600)
        yield started


def test_each_process_sees_the_gpus_of_its_share(cluster: Cluster, nodes: int) -> None:
    found = shares(cluster)
    assert len(found) == len(SHARES[nodes]) * nodes
    for share in found:
        ranks = [WORKER] * SHARES[nodes][share.model]
        assert parts(share) == sorted([CORE, *ranks] if share.kind == "ServeReplica" else [CHILD, GUARDIAN, *ranks])
        print(f"{share.model} {share.kind} in {share.container[:12]}: {sorted(share.gpus)} in {len(share.processes)} processes")
        assert len(share.gpus) == SHARES[nodes][share.model], share
        assert share.gpus <= set(range(GPUS)), share


def test_no_gpu_belongs_to_two_models(cluster: Cluster, nodes: int) -> None:
    found = shares(cluster)
    for container in (*cluster.ids("head"), *cluster.ids("worker")):
        here = [share for share in found if share.container == container]
        assert sorted(share.model for share in here) == sorted(SHARES[nodes])
        for one, other in itertools.combinations(here, 2):
            assert not one.gpus & other.gpus, here


def test_both_models_answer_word_for_word(cluster: Cluster, nodes: int, questions: dict[str, str]) -> None:
    for model in SHARES[nodes]:
        for question, answer in questions.items():
            body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
            got = cluster.api.post(f"/models/{model}/v1/chat/completions", body)
            assert got.status_code == 200, got.text
            assert got.json()["choices"][0]["message"]["content"] == answer, got.text
