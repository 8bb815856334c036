"""One container, started with nothing but `docker run`: the whole product in small."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import openai
import pytest

from tests.containers import Node, run, until

pytestmark = pytest.mark.issue(2)
QUESTION = "What is ray-serve-cai?"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as started:
        yield started


@pytest.fixture(scope="module")
def ready(node: Node) -> Node:
    until("ready, or the container's end", lambda: node.api.is_ready() or not running(node), 300)
    assert running(node), node.logs()[-3000:]
    return node


def running(node: Node) -> bool:
    return run("docker", "inspect", "--format", "{{.State.Running}}", node.id).stdout.strip() == "true"


@pytest.fixture(scope="module")
def client(ready: Node) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{ready.api.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_the_front_door_answers_at_once(node: Node) -> None:
    health = until("front door", node.api.health, 15, interval=0.1)
    assert health["model"] == "demo"
    assert health["engine"] == "vllm"
    answer = node.api.post("/v1/chat/completions", {"model": "demo", "messages": []})
    if answer.status_code == 503:  # a very fast machine may be ready by now
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"] == 503
        assert node.api.get("/ready").status_code in (200, 503)


def test_every_answer_word_for_word(client: openai.OpenAI, questions: dict[str, str]) -> None:
    for question, answer in questions.items():
        got = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": question}], temperature=0)
        assert got.choices[0].message.content == answer
        assert got.choices[0].finish_reason == "stop"


def test_a_stream_comes_token_by_token(client: openai.OpenAI, questions: dict[str, str]) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": QUESTION}], temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == questions[QUESTION]
    assert chunks[-1].usage is not None
    # vLLM joins what piled up while this loaded machine did not read; nothing else may.
    assert len(pieces) > chunks[-1].usage.completion_tokens // 2


def test_without_temperature_the_answer_is_the_same(ready: Node, questions: dict[str, str]) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}]}
    assert ready.api.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"] == questions[QUESTION]


def test_other_routes(ready: Node, client: openai.OpenAI, questions: dict[str, str]) -> None:
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.responses.create(model="demo", input=QUESTION, temperature=0).output_text == questions[QUESTION]
    assert client.completions.create(model="demo", prompt="a", max_tokens=3, temperature=0).usage
    assert ready.api.post("/tokenize", {"model": "demo", "prompt": "hello"}).json()["count"] > 0
    assert ready.api.post("/models/demo/v1/completions", {"model": "demo", "prompt": "a", "max_tokens": 1}).status_code == 200
    assert ready.api.get("/").json()["name"] == "ray-serve-cai"
    assert ready.api.health()["status"] == "ok"
    assert ready.api.get("/ready").json()["ready"] is True


def test_bad_requests(ready: Node, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.completions.create(model="nope", prompt="a")
    malformed = run(
        "curl", "-s", "-w", "%{http_code}", "-d", "{bad", "-H", "Content-Type: application/json", f"{ready.api.url}/v1/completions"
    )
    assert malformed.stdout.endswith("400")
    with pytest.raises(openai.BadRequestError, match=r"(?s)\d+.*\d+"):
        client.completions.create(model="demo", prompt="word " * 5000)
    large = ready.api.post("/v1/completions", {"model": "demo", "prompt": "x" * (65 << 20)})
    assert large.status_code == 413
    assert large.json()["error"]["code"] == 413


def test_health_and_plan_inside(ready: Node) -> None:
    assert ready.exec("ray-serve-cai", "health").stdout.startswith("ready")
    assert json.loads(ready.exec("ray-serve-cai", "status", "--json").stdout)["models"][0]["replicas"] == 1
    engines = {row["name"]: row for row in json.loads(ready.exec("ray-serve-cai", "engines", "--json").stdout)}
    assert engines["vllm"]["installed"]


def test_no_token_in_logs_or_processes(ready: Node) -> None:
    token = ready.exec("cat", "/var/lib/ray-serve-cai/token").stdout.strip()
    assert len(token) == 48
    assert token not in ready.logs()
    assert token not in ready.exec("ps", "axeww").stdout


def test_sigterm_leaves_with_zero(ready: Node) -> None:
    """Last in this file: it ends the shared node."""
    start = time.monotonic()
    run("docker", "kill", "--signal", "TERM", ready.id)
    assert ready.wait_exit(90) == 0
    assert time.monotonic() - start < 60
