"""Both engines in one cluster, a model of each: compose/mixed.yaml with the file of models that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.containers import IMAGE, SGLANG, Cluster, run, until

pytestmark = pytest.mark.issue(4)
OVERLAY = "compose/mixed.yaml"
QUESTION = "What is ray-serve-cai?"
ENGINES = {"by-vllm": "vllm", "by-sglang": "sglang"}
SERVICES = {"by-vllm": "worker", "by-sglang": "sglang-worker"}

BUILD = """
import json, sys
from importlib import import_module
from ray_serve_cai import config
from ray_serve_cai.serving import app
given = config.parse({"models": [{"source": "demo", "engine": sys.argv[1]}]}, "test")
engines = app.engine_configs(given, default_engine="", device="cpu", drain_s=60)
application = app.serve_schema(given, engines, port=8001)["applications"][0]
module, function = application["import_path"].split(":")
built = getattr(import_module(module), function)(application["args"])
print(json.dumps([type(built).__name__, sorted(sys.modules.keys() & {"vllm", "sglang", "torch", "transformers"})]))
"""


@pytest.mark.parametrize(("image", "engine"), [(IMAGE, "sglang"), (SGLANG, "vllm")])
def test_building_an_application_imports_no_engine(image: str, engine: str) -> None:
    """Serve may build it on a node that has only the other engine."""
    done = run("docker", "run", "--rm", "--entrypoint", "python3", image, "-c", BUILD, engine)
    assert json.loads(done.stdout) == ["Application", []]


def test_an_engine_that_is_not_there_ends_a_single_node_at_once() -> None:
    done = run("docker", "run", "--rm", "-e", "RSCAI_ENGINE=sglang", IMAGE, check=False)
    assert done.returncode == 78
    assert "ray-serve-cai: error: engine 'sglang' is not installed here; use an image that has it" in done.stderr


@pytest.fixture(scope="module", params=[IMAGE, SGLANG], ids=["vllm head", "sglang head"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(1, OVERLAY, IMAGE=request.param) as started:
        started.api.wait_ready()
        yield started


def ask(cluster: Cluster, model: str, question: str = QUESTION) -> str:
    """A model's answer at its own path."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
    answer = cluster.api.post(f"/models/{model}/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.full
@pytest.mark.parametrize("model", ENGINES)
def test_each_model_answers_word_for_word(cluster: Cluster, model: str, questions: dict[str, str]) -> None:
    for question, answer in questions.items():
        assert ask(cluster, model, question) == answer
    assert [one["id"] for one in cluster.api.get(f"/models/{model}/v1/models").json()["data"]] == [model]


@pytest.mark.full
def test_both_models_answer_at_the_root(cluster: Cluster, questions: dict[str, str]) -> None:
    assert cluster.api.ask(QUESTION, model="by-vllm") == questions[QUESTION]
    assert cluster.api.ask(QUESTION, model="by-sglang") == questions[QUESTION]


@pytest.mark.full
def test_which_engine_runs_a_model_is_told(cluster: Cluster) -> None:
    status = json.loads(run("docker", "exec", cluster.ids("head")[0], "ray-serve-cai", "status", "--json").stdout)
    for told in (cluster.api.health(), status):
        assert {model["name"]: (model["engine"], model["state"]) for model in told["models"]} == {
            model: (engine, "ready") for model, engine in ENGINES.items()
        }


@pytest.mark.full
def test_replicas_are_where_their_engine_is(cluster: Cluster) -> None:
    nodes = {node["ip"]: (node["engines"], node["replicas"]) for node in cluster.nodes() if node["alive"]}
    for model, service in SERVICES.items():
        (worker,) = cluster.ids(service)
        processes = run("docker", "exec", worker, "ps", "-eo", "args=").stdout.splitlines()
        assert [line.split(":")[3:5] for line in processes if line.startswith("ray::ServeReplica:")] == [[model, "engine"]]
        assert nodes.pop(cluster.ip(worker)) == ([ENGINES[model]], 1)
    assert [replicas for _, replicas in nodes.values()] == [0]


@pytest.mark.full
def test_a_model_whose_engine_is_gone_says_so_and_comes_back(cluster: Cluster, questions: dict[str, str]) -> None:
    """Meanwhile the other model serves on. The head cannot stand in: its image has the other engine."""
    (on_head,) = next(node["engines"] for node in cluster.nodes() if node["role"] == "head")
    (gone,) = (model for model, engine in ENGINES.items() if engine != on_head)
    (other,) = ENGINES.keys() - {gone}
    why = f"engine '{ENGINES[gone]}' is installed on no node; installed: {on_head}; start a node from an image that has it"
    cluster.compose("kill", SERVICES[gone])
    until("the head says why", lambda: cluster.api.health()["phase_detail"] == f"{gone}: {why}.", 60)
    assert cluster.api.health()["phase"] == "degraded"
    refused = until("refused", lambda: httpx.get(f"{cluster.api.url}/models/{gone}/v1/models", timeout=2), 30)
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        503,
        f"Model '{gone}' cannot answer now: {why}. GET /ready says when.",
    )
    assert ask(cluster, other) == questions[QUESTION]
    cluster.compose("start", SERVICES[gone])
    cluster.api.wait_ready()
    assert ask(cluster, gone) == questions[QUESTION]
