"""The demo model in each layout of its ranks, by each engine: every answer word for word, and the ranks stand where they should."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import IMAGE, ROOT, SGLANG, Cluster, Node, run, until

pytestmark = [pytest.mark.issue(5), pytest.mark.full]
DEMO = ROOT / "images/demo/model"
LENGTHS = {IMAGE: {"max_model_len": 2048}, SGLANG: {"context_length": 2048}}
RANKS = re.compile(r"VLLM::Worker|sglang::scheduler")
TP, PP = "tensor_parallel_size", "pipeline_parallel_size"


@dataclass(frozen=True)
class Layout:
    """A model's keys, the containers beside the head, and how many ranks have a process of their own in each container."""

    model: dict[str, Any]
    ranks: dict[str, list[int]]
    workers: int = 0


LAYOUTS = {
    "one rank": Layout({}, {IMAGE: [], SGLANG: [1]}),  # vLLM's only rank runs in its engine core
    "two tensor ranks in a node": Layout({TP: 2}, {IMAGE: [2], SGLANG: [2]}),
    "two stages over two nodes": Layout({PP: 2, "nodes_per_replica": 2}, {IMAGE: [1, 1], SGLANG: [1, 1]}, 1),
    "two replicas of one rank": Layout({"replicas": 2}, {IMAGE: [], SGLANG: [2]}),
}


def ranks(cluster: Cluster) -> list[int]:
    """How many ranks run as processes of their own in each container that has any."""
    listed = {name: run("docker", "exec", name, "ps", "-eo", "args=").stdout for name in (*cluster.ids("head"), *cluster.ids("worker"))}
    return sorted(count for text in listed.values() if (count := len(RANKS.findall(text))))


def answered(cluster: Cluster) -> Counter[str]:
    """Replica -> requests that it answered with 200, from the access log that it wrote; what warmed it up is not in there."""
    logged = run("docker", "exec", cluster.ids("head")[0], "sh", "-c", "cat /tmp/ray/session_latest/logs/worker-*").stdout
    return Counter(re.findall(r"demo_engine (\w+) \S+ -- POST \S+ 200 ", logged))


def configured(folder: Path, model: dict[str, Any]) -> str:
    """The path of a configuration that containers can read."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"models": [{"name": "demo", "source": "demo"} | model]}))
    file.chmod(0o644)
    return str(file)


@pytest.fixture(scope="module", params=[pytest.param(IMAGE, id="vllm"), pytest.param(SGLANG, id="sglang")])
def image(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=[pytest.param(name, id=name.replace(" ", "-")) for name in LAYOUTS])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(image: str, layout: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    wanted, folder = LAYOUTS[layout], tmp_path_factory.mktemp("layout")
    model: dict[str, Any] = wanted.model | {"engine_args": LENGTHS[image]}
    with Cluster(wanted.workers, "compose/config.yaml", CONFIG=configured(folder, model), IMAGE=image) as started:
        started.api.wait_ready()
        yield started


def test_every_answer_word_for_word(cluster: Cluster, image: str, layout: str, questions: dict[str, str]) -> None:
    """Asked four at a time, so that each replica gets its part."""
    with ThreadPoolExecutor(4) as clients:
        assert dict(zip(questions, clients.map(cluster.api.ask, questions), strict=True)) == questions
    assert ranks(cluster) == LAYOUTS[layout].ranks[image]
    copies = LAYOUTS[layout].model.get("replicas", 1)
    assert [model["replicas"] for model in cluster.api.health()["models"]] == [copies]
    if copies > 1:
        counts = until("the access logs", lambda: whole(answered(cluster), len(questions)), 30)
        assert len(counts) == copies, counts
        print(f"{copies} replicas answered {dict(counts)}")


def whole(counts: Counter[str], total: int) -> Counter[str]:
    """The counts, once they add up."""
    assert counts.total() == total, counts
    return counts


def test_stages_of_a_tied_model_are_refused_at_once(tmp_path: Path) -> None:
    """SGLang would fail after loading it: AttributeError: 'PPMissingLayer' object has no attribute 'quant_method' (models/llama.py)."""
    tied = Path(shutil.copytree(DEMO, tmp_path / "tied"))
    (tied / "config.json").write_text(json.dumps(json.loads((tied / "config.json").read_text()) | {"tie_word_embeddings": True}))
    tmp_path.chmod(0o755)
    model = {"source": "/models/tied", PP: 2, "nodes_per_replica": 2, "engine_args": LENGTHS[SGLANG]}
    volumes = [(configured(tmp_path, model), "/config.yaml", "ro"), (str(tied), "/models/tied", "ro")]
    with Node(SGLANG, env={"RSCAI_CONFIG": "/config.yaml"}, volumes=volumes) as node:
        assert node.wait_exit(60) == 78
        said = "models[demo]: pipeline_parallel_size: 2 stages of a Llama with tied embeddings are beyond SGLang, which"
        assert said in node.logs()
