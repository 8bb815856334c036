"""One replica over two containers, by each engine: exact answers, and the death of any part of it heals and leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers import IMAGE, SGLANG, Cluster, run, until

pytestmark = pytest.mark.issue(5)
OVERLAYS = ("compose/config.yaml",)
QUESTION = "What is ray-serve-cai?"
REPLICA, SHARD, GUARDIAN, CHILD = "ray::ServeReplica", "ray::Shard", "ray_serve_cai.engines.shard", "ray_serve_cai.engines.shard engine"
ENGINES = {
    IMAGE: ("vllm", ("VLLM::EngineCore", "VLLM::Worker_TP0", "VLLM::Worker_TP1")),
    SGLANG: ("sglang", ("sglang::detokenizer", "sglang::scheduler_TP0", "sglang::scheduler_TP1")),
}
LENGTHS = {"vllm": {"max_model_len": 2048}, "sglang": {"context_length": 2048}}
AGAIN_S = 240


def processes(cluster: Cluster) -> dict[str, list[tuple[str, int]]]:
    """Name -> (container, process id) of each process of a replica, in any container."""
    found: dict[str, list[tuple[str, int]]] = {}
    for container in (*cluster.ids("head"), *cluster.ids("worker")):
        listed = run("docker", "exec", container, "ps", "-eo", "pid=,args=", check=False).stdout
        for pid, command in (line.split(None, 1) for line in listed.splitlines()):
            for name in (REPLICA, SHARD, "VLLM::EngineCore", "VLLM::Worker", "sglang::scheduler", "sglang::detokenizer", CHILD, GUARDIAN):
                if name in command:
                    found.setdefault(name, []).append((container, int(pid)))
                    break
    return found


def nothing_of(before: dict[str, list[tuple[str, int]]], cluster: Cluster) -> bool:
    """Whether none of these processes lives."""
    now = processes(cluster)
    left = {name: [one for one in now.get(name, []) if one in given] for name, given in before.items()}
    assert not any(left.values()), left
    return True


def whole(cluster: Cluster) -> dict[str, list[tuple[str, int]]]:
    """The processes, once the replica has all of its parts."""
    found = processes(cluster)
    assert (len(found.get(REPLICA, [])), len(found.get(SHARD, []))) == (1, 1), found
    assert len(found.get("VLLM::Worker", []) + found.get("sglang::scheduler", [])) == 2, found
    return found


def leftovers(cluster: Cluster) -> dict[str, Any]:
    """What a replica may leave behind on all nodes: placement groups, ports of the engines' range, shared memory."""
    script = (
        "import ray, json, logging; ray.init(address='auto', logging_level=logging.ERROR);"
        "from ray.util import placement_group_table as table;"
        "print(json.dumps(sum(group['state'] != 'REMOVED' for group in table().values())))"
    )
    token = ("-e", "RAY_AUTH_MODE=token", "-e", "RAY_AUTH_TOKEN_PATH=/tmp/ray-serve-cai/ray-token")
    groups = int(run("docker", "exec", *token, cluster.ids("head")[0], "python3", "-c", script).stdout.splitlines()[-1])
    ports, memory = 0, 0
    for container in (*cluster.ids("head"), *cluster.ids("worker")):
        lines = run("docker", "exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
        listening = [int(line.split()[1].rpartition(":")[2], 16) for line in lines if line.split()[3] == "0A"]
        ports += len({port for port in listening if 20000 <= port <= 20999})
        memory += sum(name.startswith("psm_") for name in run("docker", "exec", container, "ls", "/dev/shm").stdout.split())
    return {"placement groups": groups, "ports": ports, "segments of shared memory": memory}


@pytest.fixture(scope="module", params=[pytest.param(IMAGE, id="vllm"), pytest.param(SGLANG, id="sglang", marks=pytest.mark.full)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    engine = ENGINES[request.param][0]
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    model = {"source": "demo", "tensor_parallel_size": 2, "nodes_per_replica": 2, "engine_args": LENGTHS[engine]}
    config.write_text(yaml.safe_dump({"models": [model]}))
    config.chmod(0o644)
    with Cluster(1, *OVERLAYS, IMAGE=request.param, CONFIG=str(config)) as started:
        started.api.wait_ready()
        yield started


def test_every_answer_word_for_word(cluster: Cluster, questions: dict[str, str]) -> None:
    for question, answer in questions.items():
        assert cluster.api.ask(question) == answer


@pytest.mark.full
def test_each_node_has_its_rank(cluster: Cluster) -> None:
    found = processes(cluster)
    ranks = found.get("VLLM::Worker", []) + found.get("sglang::scheduler", [])
    assert len(ranks) == len({container for container, _ in ranks}) == 2
    assert Counter({name: len(found[name]) for name in (REPLICA, SHARD, CHILD, GUARDIAN)}) == Counter((REPLICA, SHARD, CHILD, GUARDIAN))
    assert found[REPLICA][0][0] != found[SHARD][0][0]


@pytest.mark.full
def test_a_shards_log_is_in_the_replicas(cluster: Cluster) -> None:
    logged = run("docker", "logs", cluster.ids("head")[0])
    assert " node 1: " in logged.stdout + logged.stderr


def streaming(cluster: Cluster) -> Any:
    body = {"model": "demo", "prompt": "a", "max_tokens": 1800, "ignore_eos": True, "temperature": 0, "stream": True}
    return httpx.stream("POST", f"{cluster.api.url}/v1/completions", json=body, timeout=60)


def killed(cluster: Cluster, kind: str, place: int = 0) -> None:
    container, pid = processes(cluster)[kind][place]
    run("docker", "exec", container, "kill", "-9", str(pid))


@pytest.mark.full
@pytest.mark.parametrize("victim", ["replica", "rank 0", "rank 1", "core", "shard", "guardian", "child"])
def test_the_death_of_any_part_heals(
    cluster: Cluster, victim: str, questions: dict[str, str], record_property: pytest.RecordProperty
) -> None:
    cluster.api.wait_ready()
    before, left = until("a whole replica", lambda: whole(cluster), 30), leftovers(cluster)
    workers = "VLLM::Worker" if "VLLM::Worker" in before else "sglang::scheduler"
    core = "VLLM::EngineCore" if "VLLM::EngineCore" in before else "sglang::detokenizer"
    first = before[REPLICA][0][0]
    of_rank = {container == first: place for place, (container, _) in enumerate(before[workers])}
    targets = {
        "replica": (REPLICA, 0),
        "rank 0": (workers, of_rank[True]),
        "rank 1": (workers, of_rank[False]),
        "core": (core, 0),
        "shard": (SHARD, 0),
        "guardian": (GUARDIAN, 0),
        "child": (CHILD, 0),
    }
    with streaming(cluster) as answer:
        chunks = (line for line in answer.iter_lines() if line)
        assert all('"text":' in chunk for chunk in itertools.islice(chunks, 5))
        start = time.monotonic()
        killed(cluster, *targets[victim])
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert not any('"finish_reason":"length"' in chunk for chunk in chunks)
    ended = time.monotonic() - start
    until("nothing is left of the old replica", lambda: nothing_of(before, cluster), 30)
    until("answers", lambda: cluster.api.ask(QUESTION) == questions[QUESTION], AGAIN_S, interval=0.3)
    again = time.monotonic() - start
    until(
        "one replica",
        lambda: {name: len(found) for name, found in processes(cluster).items()} == {name: len(found) for name, found in before.items()},
        30,
    )
    until("nothing more than before", lambda: no_more(leftovers(cluster), left), 30)
    record_property("seconds", f"stream ended after {ended:.1f} s, served again after {again:.1f} s")
    print(f"killed {victim}: stream ended after {ended:.1f} s, served again after {again:.1f} s")


def no_more(now: dict[str, int], before: dict[str, int]) -> bool:
    """Whether there is nothing more than before."""
    assert not {name: value for name, value in now.items() if value > before[name]}, (before, now)
    return True


@pytest.mark.full
@pytest.mark.parametrize("victim", [REPLICA, SHARD, "engine"])
def test_a_death_while_loading_heals(cluster: Cluster, victim: str, questions: dict[str, str]) -> None:
    """Idle, the replica is killed; its successor loses a part before it is ready."""
    cluster.api.wait_ready()
    before, left = until("a whole replica", lambda: whole(cluster), 30), leftovers(cluster)
    part = ("VLLM::EngineCore" if "VLLM::EngineCore" in before else "sglang::scheduler") if victim == "engine" else victim
    killed(cluster, REPLICA)

    def successor() -> list[tuple[str, int]]:
        return [one for one in processes(cluster).get(part, []) if one not in before[part]]

    container, pid = until(f"a new {part}", successor, 90, interval=0.1)[0]
    until("not ready", lambda: not cluster.api.is_ready(), 30, interval=0.1)
    loading = processes(cluster)
    run("docker", "exec", container, "kill", "-9", str(pid))
    for parts in (before, loading):
        until("nothing is left of what was before", lambda parts=parts: nothing_of(parts, cluster), 60)
    until("answers", lambda: cluster.api.ask(QUESTION) == questions[QUESTION], AGAIN_S, interval=0.3)
    until("nothing more than before", lambda: no_more(leftovers(cluster), left), 30)


@pytest.mark.full
def test_the_death_of_a_node_heals(cluster: Cluster, questions: dict[str, str]) -> None:
    """The worker's container is killed during a stream and started again, as a scheduler would."""
    cluster.api.wait_ready()
    worker, left = cluster.ids("worker")[0], leftovers(cluster)
    with streaming(cluster) as answer:
        chunks = (line for line in answer.iter_lines() if line)
        assert all('"text":' in chunk for chunk in itertools.islice(chunks, 5))
        start = time.monotonic()
        run("docker", "kill", worker)
        with contextlib.suppress(httpx.RemoteProtocolError):
            assert not any('"finish_reason":"length"' in chunk for chunk in chunks)
    ended = time.monotonic() - start
    until("not ready", lambda: not cluster.api.is_ready(), 60)
    run("docker", "start", worker)
    until("answers", lambda: cluster.api.ask(QUESTION) == questions[QUESTION], AGAIN_S, interval=0.3)
    print(f"killed a node: stream ended after {ended:.1f} s, served again after {time.monotonic() - start:.1f} s")
    until("nothing more than before", lambda: no_more(leftovers(cluster), left), 30)
    whole(cluster)


def test_the_configuration_that_is_shipped_is_this_one() -> None:
    shipped = yaml.safe_load(Path("configs/across_nodes.yaml").read_text())["models"][0]
    assert (shipped["tensor_parallel_size"], shipped["nodes_per_replica"]) == (2, 2)
