"""SGLang in a container of its own image, started with nothing but `docker run`: the same answers, routes and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from tests.containers import SGLANG, Node, run

pytestmark = pytest.mark.issue(4)
QUESTION = "What is ray-serve-cai?"
MAX_BYTES = 3_300_000_000


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(SGLANG, shm_size="1g") as started:
        started.api.wait_ready()
        yield started


@pytest.fixture(scope="module")
def client(node: Node) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.api.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def test_size() -> None:
    assert int(run("docker", "image", "inspect", "--format", "{{.Size}}", SGLANG).stdout) <= MAX_BYTES


def test_who_answers(node: Node) -> None:
    health = node.api.health()
    assert (health["engine"], health["model"]) == ("sglang", "demo")
    engines = {row["name"]: row for row in json.loads(node.exec("ray-serve-cai", "engines", "--json").stdout)}
    assert engines["sglang"]["installed"]
    assert not engines["vllm"]["installed"]


def test_every_answer_word_for_word(client: openai.OpenAI, questions: dict[str, str]) -> None:
    for question, answer in questions.items():
        got = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": question}], temperature=0)
        assert got.choices[0].message.content == answer
        assert got.choices[0].finish_reason == "stop"


def test_a_stream(client: openai.OpenAI, questions: dict[str, str]) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    stream = client.chat.completions.create(model="demo", messages=messages, temperature=0, stream=True)  # type: ignore[arg-type,call-overload]
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(pieces) == questions[QUESTION]
    assert len(pieces) > 5


def test_log_probabilities_and_several_answers(client: openai.OpenAI) -> None:
    several = client.completions.create(model="demo", prompt="Hello", max_tokens=3, n=2, logprobs=2, temperature=0)
    assert len(several.choices) == 2
    assert several.choices[0].logprobs is not None
    assert several.choices[0].logprobs.tokens


def test_an_unknown_model_is_refused_as_vllm_does(node: Node, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`nope` does not exist"):
        client.completions.create(model="nope", prompt="a")
    body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    assert node.api.post("/models/demo/v1/chat/completions", body).status_code == 200


PARSE = """
import json, sys
from ray_serve_cai.engines.engine_config import of_arguments
from ray_serve_cai.engines.registry import SGLANG
from ray_serve_cai.engines.sglang_engine import server_arguments
from ray_serve_cai.errors import ConfigError
for arguments in json.loads(sys.argv[1]):
    try:
        server_arguments(of_arguments(SGLANG, {"model": "/opt/ray-serve-cai/models/demo"} | arguments, ranks=1, use_cpu=True))
    except ConfigError as error:
        print(error)
"""


def test_a_wrong_argument_is_one_line(node: Node) -> None:
    """By SGLang's own parser, of the version that is in the image."""
    wrong = [{"max_runing_requests": 4}, {"attention_backend": "abacus"}]
    said = node.exec("python3", "-c", PARSE, json.dumps(wrong)).stdout.splitlines()
    assert len(said) == 2
    assert "SGLang has no such argument; did you mean max_running_requests?" in said[0]
    assert "attention-backend: invalid choice: 'abacus'" in said[1]
