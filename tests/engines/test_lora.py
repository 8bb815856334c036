"""LoRA adapters: from a local path under their own names; at run time for every replica, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers import Node
from tests.engines.servers import LABELS, Pair, Pairs
from tests.engines.shapes import MODEL, chat, user
from tests.engines.shapes_adapters import ADAPTER

pytestmark = [pytest.mark.issue(3), pytest.mark.full]


def said(pair: Pair, question: str, model: str) -> str:
    """What the model says, which is the same on both servers."""
    body = pair.compare(
        chat("said", "an answer of the adapter's server", profile="adapters", model=model, messages=user(question), max_tokens=80)
    ).body
    return str(body["choices"][0]["message"]["content"])


@pytest.mark.parametrize("pair", ["vllm:adapters"], indirect=True)
class TestOneReplica:
    def test_the_adapter_is_listed_with_its_parent(self, pair: Pair) -> None:
        models = {model["id"]: model for model in pair.ours.api.get("/v1/models").json()["data"]}
        assert models[ADAPTER]["parent"] == MODEL
        assert models[MODEL]["parent"] is None

    def test_the_base_answers_word_for_word_and_the_adapter_otherwise(self, pair: Pair, questions: dict[str, str]) -> None:
        for question, answer in list(questions.items())[:5]:
            assert said(pair, question, MODEL) == answer
            assert said(pair, question, ADAPTER) != answer

    def test_loaded_at_run_time_it_answers_until_it_is_unloaded(self, pair: Pair) -> None:
        api = pair.ours.api
        question = {"model": "late", "messages": user(), "temperature": 0, "max_tokens": 20}
        assert api.post("/v1/chat/completions", question).status_code == 404
        loaded = api.post("/v1/load_lora_adapter", {"lora_name": "late", "lora_path": "/adapters/late"})
        assert loaded.status_code == 200, loaded.text
        answer = api.post("/v1/chat/completions", question)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] != said(pair, user()[0]["content"], ADAPTER)
        assert api.post("/v1/unload_lora_adapter", {"lora_name": "late"}).status_code == 200
        assert api.post("/v1/chat/completions", question).status_code == 404


@pytest.fixture(scope="module")
def two_replicas(pairs: Pairs, adapters: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two replicas of a model that has an adapter, where vLLM would let one replica load another."""
    pairs.close()  # no more than two engines at a time
    arguments = {"enable_lora": True, "lora_modules": [f"{ADAPTER}=/adapters/{ADAPTER}"], "max_lora_rank": 8, "max_model_len": 512}
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(yaml.safe_dump({"models": [{"source": MODEL, "replicas": 2, "cpus_per_replica": 0.5, "engine_args": arguments}]}))
    config.chmod(0o644)
    volumes = [(str(adapters), "/adapters", "ro"), (str(config), "/config.yaml", "ro")]
    environment = {"RSCAI_CONFIG": "/config.yaml", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    with Node(env=environment, volumes=volumes, shm_size="1g", labels=LABELS) as node:
        node.api.wait_ready()
        yield node


def test_several_replicas_all_have_the_adapter_of_the_configuration(two_replicas: Node) -> None:
    asked = {"model": ADAPTER, "messages": user(), "temperature": 0, "max_tokens": 12}
    answers = [two_replicas.api.post("/v1/chat/completions", asked) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert two_replicas.api.ask(user()[0]["content"], model=MODEL)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/load_lora_adapter", {"lora_name": "late", "lora_path": "/adapters/late"}),
        ("POST", "/v1/unload_lora_adapter", {"lora_name": ADAPTER}),
        ("POST", "/models/demo/v1/load_lora_adapter", {"lora_name": "late", "lora_path": "/adapters/late"}),
        ("POST", "/adapters", {"name": "late", "src": "/adapters/late"}),
        ("DELETE", f"/adapters/{ADAPTER}", None),
    ],
)
def test_several_replicas_refuse_run_time_changes(two_replicas: Node, method: str, path: str, body: dict[str, Any] | None) -> None:
    """One replica would have the adapter and the other not, so that answers would depend on chance; by SageMaker's routes too."""
    for _ in range(4):
        refused = httpx.request(method, two_replicas.api.url + path, json=body, timeout=60)
        assert refused.status_code == 409, refused.text
        error = refused.json()["error"]
        assert error | {"message": ""} == {"message": "", "type": "invalid_request_error", "param": None, "code": 409}
        assert "2 replicas" in error["message"]
        assert "engine_args" in error["message"]
