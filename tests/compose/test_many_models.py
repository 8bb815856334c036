"""Several models at one address, as their users' clients see them: in one container, and by both engines in a cluster."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.containers import IMAGE, Api, Cluster, Node, until
from tests.engines.shapes_chat import CALL, CITY

pytestmark = pytest.mark.issue(10)
QUESTION = "What is ray-serve-cai?"
VLLM = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
SGLANG = {"tool_call_parser": "hermes", "enable_metrics": True}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Get the weather.", "parameters": CITY}}
CALLING: dict[str, Any] = {"structured_outputs": {"regex": CALL}, "regex": CALL}
"""Makes a model call the tool that knows nothing of tools: each engine heeds its own of the two."""
LONG = "x " * 50_000
"""Together with a request of it, more than the front door reads."""


def settings(directory: Path, *models: dict[str, Any]) -> Path:
    file = directory / "models.yaml"
    file.write_text(yaml.safe_dump({"models": [{"source": "demo", **model} for model in models]}))
    file.chmod(0o644)
    return file


class Served:
    """Models behind one address."""

    def __init__(self, api: Api, *models: str) -> None:
        self.api, self.models = api, models
        self.openai = openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Node]]:
    """Two models by one engine in one container."""
    file = settings(tmp_path_factory.mktemp("pair"), {"name": "a", "engine_args": VLLM}, {"name": "team/b", "engine_args": VLLM})
    with Node(IMAGE, env={"RSCAI_CONFIG": "/config.yaml"}, volumes=[(str(file), "/config.yaml", "ro")], shm_size="1g") as node:
        node.api.wait_ready()
        yield Served(node.api, "a", "team/b"), node


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One model by each engine in a cluster."""
    by_vllm = {"name": "by-vllm", "engine": "vllm", "engine_args": VLLM}
    by_sglang = {"name": "by-sglang", "engine": "sglang", "engine_args": SGLANG}
    file = settings(tmp_path_factory.mktemp("mixed"), by_vllm, by_sglang)
    with Cluster(1, "compose/mixed.yaml", CONFIG=str(file)) as cluster:
        cluster.api.wait_ready()
        yield Served(cluster.api, "by-vllm", "by-sglang")


def check_openai(served: Served, questions: dict[str, str]) -> None:
    """OpenAI's own client: the list, an answer, a stream, a tool, with each model."""
    assert [one.id for one in served.openai.models.list()] == list(served.models)
    for model in served.models:
        assert served.openai.models.retrieve(model).id == model
        asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
        answer = served.openai.chat.completions.create(**asked)
        assert (answer.model, answer.choices[0].message.content) == (model, questions[QUESTION])
        stream = list(served.openai.chat.completions.create(**asked, stream=True))
        assert {piece.model for piece in stream} == {model}
        assert "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices) == questions[QUESTION]
        called = served.openai.chat.completions.create(**asked, tools=[TOOL], extra_body=CALLING, max_tokens=90)
        (call,) = called.choices[0].message.tool_calls
        assert call.function.name == "weather"
        assert set(json.loads(call.function.arguments)) == {"city"}


def test_openai(pair: tuple[Served, Node], questions: dict[str, str]) -> None:
    check_openai(pair[0], questions)


@pytest.mark.full
def test_openai_with_both_engines(mixed: Served, questions: dict[str, str]) -> None:
    check_openai(mixed, questions)


@pytest.mark.full
def test_langchain(mixed: Served, questions: dict[str, str]) -> None:
    from langchain_core.tools import tool as declare
    from langchain_openai import ChatOpenAI

    @declare
    def weather(city: str) -> str:
        """Get the weather."""
        return f"rain in {city}"

    for model in mixed.models:
        chat = ChatOpenAI(model=model, base_url=f"{mixed.api.url}/v1", api_key="none", temperature=0, max_retries=0)  # type: ignore[arg-type]
        assert chat.invoke(QUESTION).content == questions[QUESTION]
        assert "".join(str(piece.content) for piece in chat.stream(QUESTION)) == questions[QUESTION]
        called = chat.bind_tools([weather]).bind(extra_body=CALLING, max_tokens=90).invoke(QUESTION)
        assert [call["name"] for call in called.tool_calls] == ["weather"]


@pytest.mark.full
def test_litellm(mixed: Served, questions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # what it would download is only for bills
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own making
        from litellm import completion

        for model in mixed.models:
            asked: dict[str, Any] = {"model": f"openai/{model}", "api_base": f"{mixed.api.url}/v1", "api_key": "none", "temperature": 0}
            asked["messages"] = [{"role": "user", "content": QUESTION}]
            assert completion(**asked).choices[0].message.content == questions[QUESTION]
            pieces = [piece.choices[0].delta.content or "" for piece in completion(**asked, stream=True)]
            assert "".join(pieces) == questions[QUESTION]
            called = completion(**asked, tools=[TOOL], extra_body=CALLING, max_tokens=90)
            assert [call.function.name for call in called.choices[0].message.tool_calls] == ["weather"]


@pytest.mark.full
def test_metrics_of_both_engines(mixed: Served) -> None:
    """In one answer of the head, though no engine runs there."""
    mixed.api.ask(QUESTION, model="by-vllm")
    mixed.api.ask(QUESTION, model="by-sglang")
    told = mixed.api.get("/metrics").text.splitlines()
    for model, name in (("by-vllm", "vllm:time_to_first_token_seconds_count"), ("by-sglang", "sglang:time_to_first_token_seconds_count")):
        counts = [line for line in told if line.startswith(f'{name}{{model="{model}",replica="')]
        assert sum(float(line.rpartition(" ")[2]) for line in counts) > 0
    nodes = {line.split('node="')[1].split('"')[0] for line in told if line.startswith("ray_node_cpu_count{")}
    assert len(nodes) == 3


def test_what_the_front_door_cannot_read_is_answered_by_the_right_model(pair: tuple[Served, Node]) -> None:
    """Too long for these models, and each of them says so with its own name."""
    served, _ = pair
    for model in served.models:
        answer = served.api.post("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}], "model": model})
        assert answer.status_code == 400, answer.text
        assert answer.headers["x-request-id"]
        tokens = served.api.post("/tokenize", {"prompt": LONG, "model": model})
        assert (tokens.status_code, tokens.json()["count"] > 10_000) == (200, True)
    unknown = served.api.post("/v1/chat/completions", {"messages": [], "model": "c"})
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "The model 'c' does not exist; there are: a, team/b.")


def test_a_gateway_that_dies_is_started_again(pair: tuple[Served, Node]) -> None:
    """Meanwhile models answer, since nothing of the gateway stands before them."""
    served, node = pair
    find = ("sh", "-c", "pgrep -f 'ray_serve_cai.cli gateway' | head -1")
    before = node.exec(*find).stdout.strip()
    node.exec("kill", "-KILL", before)
    answer = served.api.post("/v1/completions", {"model": "team/b", "prompt": "a", "max_tokens": 1})
    assert answer.status_code == 200, answer.text
    until("the list of models", lambda: served.api.get("/v1/models").status_code == 200, 20)
    assert node.exec(*find).stdout.strip() not in ("", before)
    assert "the gateway ended with exit code 137; it starts again" in node.logs()


@pytest.mark.full
@pytest.mark.parametrize("way", ["through the front door alone", "through the gateway"])
def test_a_client_that_leaves_ends_the_engines_work(pair: tuple[Served, Node], way: str) -> None:
    served, _ = pair
    body: dict[str, Any] = {"prompt": "a", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    body |= {"model": "team/b"} if way.endswith("alone") else {"user": LONG, "model": "team/b"}

    def running() -> float:
        told = served.api.get("/models/team/b/metrics").text
        return sum(float(line.split()[-1]) for line in told.splitlines() if line.startswith("vllm:num_requests_running{"))

    with httpx.stream("POST", f"{served.api.url}/v1/completions", json=body, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        pieces = answer.iter_raw()
        until("the engine works", lambda: next(pieces) and running() == 1, 5, 0)
    left = time.monotonic()
    until("the engine is free", lambda: running() == 0, 5, 0.05)
    assert time.monotonic() - left < 1
