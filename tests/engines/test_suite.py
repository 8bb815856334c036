"""One suite for every engine: what a client of an OpenAI-compatible server may rely on, whichever engine answers."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from tests.engines.contracts import CONTRACTS
from tests.engines.servers import Pair
from tests.engines.shapes import MODEL, QUESTION, user
from tests.engines.shapes_chat import CALL, FORMAT, NAMED, SCHEMA, TOOLS

pytestmark = pytest.mark.issue(4)
A, B = 69, 70
"""The tokens "a" and "b" of the demo model."""


@dataclass(frozen=True)
class Dialect:
    """What is not the same in all engines: how a pattern is demanded, a thought's marks and its field.

    ``streams_calls`` is whether a call arrives as one in a stream. vLLM's granite parser, the only one whose marks need no tokens of their
    own, lets it through as text there.
    """

    pattern: Callable[[str], dict[str, Any]]
    before: str
    after: str
    thought: str
    streams_calls: bool


DIALECTS = {
    "vllm": Dialect(
        lambda regex: {"structured_outputs": {"regex": regex}},
        "Here is my thought process:",
        "Here is my response:",
        "reasoning",
        streams_calls=False,
    ),
    "sglang": Dialect(lambda regex: {"regex": regex}, "<think>", "</think>", "reasoning_content", streams_calls=True),
}
CALLING: dict[str, Any] = {"max_tokens": 120, "frequency_penalty": 2}
"""The penalty keeps the demo model, which has not learned to call, from writing spaces for ever where JSON allows them."""
generators = pytest.mark.parametrize("pair", [f"{engine}:generate" for engine in CONTRACTS], indirect=True)
embedders = pytest.mark.parametrize("pair", [f"{engine}:embed" for engine in CONTRACTS], indirect=True)


@pytest.fixture
def client(pair: Pair) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{pair.ours.api.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture
def dialect(pair: Pair) -> Dialect:
    return DIALECTS[pair.contract.engine]


def say(client: openai.OpenAI, question: str = QUESTION, **more: Any) -> Any:
    """A greedy chat; a field that the client does not know stands in ``extra_body``."""
    return client.chat.completions.create(**({"model": MODEL, "messages": user(question), "temperature": 0} | more))


def complete(client: openai.OpenAI, prompt: Any = "Each image holds", **more: Any) -> Any:
    """A greedy completion of a few tokens."""
    return client.completions.create(**({"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 8} | more))


def parts(stream: Any, field: str = "content") -> list[str]:
    """The texts of a stream's first choice, piece by piece."""
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    return [text for text in (getattr(delta, field, None) for delta in deltas) if text]


def fits(text: str) -> bool:
    """Whether a text is what `SCHEMA` says."""
    thing = json.loads(text)
    return bool(
        thing.keys() == {"name", "size"}
        and len(thing["name"]) <= SCHEMA["properties"]["name"]["maxLength"]
        and thing["size"] in ("small", "large")
    )  # type: ignore[index]


@generators
class TestGenerating:
    def test_every_answer_word_for_word(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        for question, answer in questions.items():
            (choice,) = say(client, question).choices
            assert (choice.message.content, choice.message.role, choice.finish_reason) == (answer, "assistant", "stop")

    def test_several_clients_at_once(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda question: say(client, question).choices[0].message.content, questions))
        assert answers == list(questions.values())

    def test_a_conversation_with_instructions(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        messages = [{"role": "system", "content": "Be short."}, *user("Hello!"), {"role": "assistant", "content": "Hello!"}, *user()]
        assert say(client, messages=messages).choices[0].message.content == questions[QUESTION]

    def test_a_stream_ends_with_the_reason_and_the_count(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        chunks = list(say(client, stream=True, stream_options={"include_usage": True}))
        pieces = parts(chunks)
        assert "".join(pieces) == questions[QUESTION]
        assert len(pieces) > 5
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        whole = say(client)
        assert not chunks[-1].choices
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens

    def test_completions_of_texts_and_of_tokens(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        prompt = f"<|user|>{QUESTION}<|end|><|assistant|>"
        assert complete(client, prompt, max_tokens=200).choices[0].text == questions[QUESTION]
        tokens = httpx.post(f"{client.base_url}".replace("/v1/", "/tokenize"), json={"model": MODEL, "prompt": prompt}).json()["tokens"]
        assert complete(client, tokens, max_tokens=200).choices[0].text == questions[QUESTION]
        two = complete(client, [prompt, "Each image holds"], max_tokens=4).choices
        assert [choice.index for choice in two] == [0, 1]
        assert two[1].text == complete(client, max_tokens=4).choices[0].text

    def test_a_completion_in_a_stream(self, client: openai.OpenAI) -> None:
        whole = complete(client, max_tokens=20).choices[0].text
        pieces = [chunk.choices[0].text for chunk in complete(client, max_tokens=20, stream=True) if chunk.choices]
        assert "".join(pieces) == whole
        assert len(pieces) > 3

    def test_a_limit_ends_the_answer(self, client: openai.OpenAI) -> None:
        answer = say(client, max_tokens=5)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 5
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5

    def test_log_probabilities(self, client: openai.OpenAI) -> None:
        (choice,) = say(client, logprobs=True, top_logprobs=3, max_tokens=12).choices
        content = choice.logprobs.content
        assert "".join(entry.token for entry in content) == choice.message.content
        for entry in content:
            ranked = [alternative.logprob for alternative in entry.top_logprobs]
            assert len(ranked) == 3
            assert 0 >= ranked[0] >= ranked[1] >= ranked[2]
            assert entry.logprob == ranked[0], "greedy takes the best"
        logprobs = complete(client, logprobs=2).choices[0].logprobs
        assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 8
        assert all(len(alternatives) == 2 for alternatives in logprobs.top_logprobs)

    def test_log_probabilities_in_a_stream(self, client: openai.OpenAI) -> None:
        chunks = [chunk.choices[0] for chunk in say(client, logprobs=True, top_logprobs=1, max_tokens=12, stream=True) if chunk.choices]
        streamed = [entry.logprob for choice in chunks if choice.logprobs for entry in choice.logprobs.content]
        whole = [entry.logprob for entry in say(client, logprobs=True, top_logprobs=1, max_tokens=12).choices[0].logprobs.content]
        assert streamed == pytest.approx(whole, abs=1e-3)

    def test_several_answers(self, client: openai.OpenAI, dialect: Dialect) -> None:
        choices = say(client, n=3, temperature=2, extra_body=dialect.pattern("[a-z ]{40}"), max_tokens=60).choices
        assert [choice.index for choice in choices] == [0, 1, 2]
        assert len({choice.message.content for choice in choices}) > 1
        streamed = {chunk.choices[0].index for chunk in say(client, n=3, temperature=2, stream=True, max_tokens=4) if chunk.choices}
        assert streamed == {0, 1, 2}

    def test_a_text_ends_the_answer(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        (choice,) = say(client, stop=["models"]).choices
        assert choice.message.content == questions[QUESTION].partition("models")[0]
        assert choice.finish_reason == "stop"
        assert "".join(parts(say(client, stop=["models"], stream=True))) == choice.message.content

    def test_a_bias_and_a_penalty(self, client: openai.OpenAI, dialect: Dialect) -> None:
        assert say(client, logit_bias={str(A): 100}, max_tokens=4).choices[0].message.content == "aaaa"
        either = {"extra_body": dialect.pattern("[ab]{24}"), "max_tokens": 30}
        assert len(set(say(client, **either).choices[0].message.content)) == 1, "greedy repeats itself"
        assert set(say(client, **either, frequency_penalty=2).choices[0].message.content) == {"a", "b"}

    def test_an_answer_that_fits_a_schema(self, client: openai.OpenAI) -> None:
        assert fits(say(client, response_format=FORMAT, max_tokens=60).choices[0].message.content)
        assert fits("".join(parts(say(client, response_format=FORMAT, max_tokens=60, stream=True))))

    def test_an_answer_that_fits_a_pattern(self, client: openai.OpenAI, dialect: Dialect) -> None:
        assert say(client, extra_body=dialect.pattern("(red|green), [0-9]{3}")).choices[0].message.content.startswith(("red, ", "green, "))

    @pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
    def test_a_demanded_call(self, client: openai.OpenAI, dialect: Dialect, choice: Any) -> None:
        asked = {"tools": TOOLS, "tool_choice": choice, **CALLING}
        (call,) = say(client, **asked).choices[0].message.tool_calls
        assert call.function.name in ("weather", "time")
        assert json.loads(call.function.arguments)["city"] in ("Bonn", "Rome")
        if not dialect.streams_calls:
            return
        pieces = [
            delta.function
            for chunk in say(client, **asked, stream=True)
            if chunk.choices
            for delta in chunk.choices[0].delta.tool_calls or []
        ]
        assert "".join(piece.name or "" for piece in pieces) == call.function.name
        assert json.loads("".join(piece.arguments or "" for piece in pieces)) == json.loads(call.function.arguments)

    def test_a_call_found_in_the_text(self, client: openai.OpenAI, dialect: Dialect) -> None:
        (choice,) = say(client, tools=TOOLS, tool_choice="auto", extra_body=dialect.pattern(CALL), **CALLING).choices
        (call,) = choice.message.tool_calls
        assert (call.function.name, choice.finish_reason) == ("weather", "tool_calls")
        assert json.loads(call.function.arguments)["city"] in ("Bonn", "Rome")

    def test_tools_that_are_not_needed(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        message = say(client, tools=TOOLS, tool_choice="none").choices[0].message
        assert not message.tool_calls
        assert message.content

    def test_a_thought_before_the_answer(self, client: openai.OpenAI, dialect: Dialect) -> None:
        pattern = dialect.pattern(f"{dialect.before}[a-z]{{4}}{dialect.after}[a-z]{{4}}")
        message = say(client, extra_body=pattern, max_tokens=90).choices[0].message
        thought = getattr(message, dialect.thought)
        assert (len(thought), len(message.content)) == (4, 4)
        chunks = list(say(client, extra_body=pattern, max_tokens=90, stream=True))
        assert "".join(parts(chunks)) == message.content
        assert "".join(parts(chunks, dialect.thought)).startswith(thought), "vLLM's granite parser lets a part of its mark slip"

    def test_which_models_there_are(self, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == [MODEL]

    def test_anthropics_form(self, pair: Pair, questions: dict[str, str]) -> None:
        answer = pair.ours.api.post("/v1/messages", {"model": MODEL, "messages": user(), "temperature": 0, "max_tokens": 200}).json()
        assert answer["content"][0]["text"] == questions[QUESTION]
        assert answer["stop_reason"] == "end_turn"

    def test_the_responses_form(self, client: openai.OpenAI, questions: dict[str, str]) -> None:
        assert client.responses.create(model=MODEL, input=QUESTION, temperature=0).output_text == questions[QUESTION]

    def test_a_client_that_leaves(self, pair: Pair, client: openai.OpenAI, questions: dict[str, str]) -> None:
        stream = complete(client, max_tokens=1500, extra_body={"ignore_eos": True}, stream=True)
        next(iter(stream))
        stream.close()
        assert say(client).choices[0].message.content == questions[QUESTION]

    @pytest.mark.parametrize(
        ("status", "path", "body"),
        [
            (404, "/v1/chat/completions", {"model": "nope", "messages": user()}),
            (404, "/v1/chat/completions", {"model": "nope", "messages": user(), "stream": True}),
            (404, "/v1/completions", {"model": "nope", "prompt": "a"}),
            (404, "/v1/messages", {"model": "nope", "messages": user(), "max_tokens": 4}),
            (404, "/v1/responses", {"model": "nope", "input": "a"}),
            (400, "/v1/chat/completions", {"model": MODEL}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": "Hello"}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": user("word " * 6000)}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": user(), "temperature": "hot"}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": user(), "top_p": 2}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": user(), "n": 100000}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": user(), "logprobs": True, "top_logprobs": 100000}),
            (400, "/v1/chat/completions", {"model": MODEL, "messages": user(), "tool_choice": "required"}),
            (400, "/v1/completions", {"model": MODEL, "prompt": [999999]}),
            (400, "/v1/completions", {"model": MODEL, "prompt": [-1]}),
            (400, "/v1/completions", {"model": MODEL, "prompt": [[A], [999999]]}),
            (400, "/v1/completions", {"model": MODEL, "prompt": "a", "logprobs": 100000}),
            (404, "/v1/nope", {"model": MODEL}),
        ],
    )
    def test_an_error_says_what_is_wrong_and_harms_nobody(
        self, pair: Pair, client: openai.OpenAI, questions: dict[str, str], status: int, path: str, body: dict[str, Any]
    ) -> None:
        answer = pair.ours.api.post(path, body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        if body.get("model") == "nope":
            assert "`nope` does not exist" in json.dumps(answer.json())
        assert say(client).choices[0].message.content == questions[QUESTION]

    @pytest.mark.parametrize("content", [b"{bad", b"", b'{"prompt": "\xff\xfe"}'])
    def test_a_body_that_is_no_json(self, pair: Pair, content: bytes) -> None:
        answer = httpx.post(pair.ours.api.url + "/v1/completions", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400

    def test_a_model_that_generates_does_not_embed(self, pair: Pair) -> None:
        assert pair.ours.api.post("/v1/embeddings", {"model": MODEL, "input": "Hello"}).status_code in (400, 404)


@embedders
@pytest.mark.full
class TestEmbedding:
    def test_texts_become_vectors_of_length_one(self, client: openai.OpenAI) -> None:
        answer = client.embeddings.create(model=MODEL, input=["Hello!", "Type make up."], encoding_format="float")
        assert [entry.index for entry in answer.data] == [0, 1]
        for entry in answer.data:
            assert len(entry.embedding) == 128
            assert math.hypot(*entry.embedding) == pytest.approx(1, abs=1e-3)
        assert answer.data[0].embedding != answer.data[1].embedding
        assert answer.usage.prompt_tokens > 2

    def test_a_text_has_one_vector(self, client: openai.OpenAI) -> None:
        first, second = (client.embeddings.create(model=MODEL, input="Hello!", encoding_format="float").data[0].embedding for _ in range(2))
        assert second == pytest.approx(first, abs=1e-5)

    def test_tokens_in_place_of_text_and_the_compact_form(self, client: openai.OpenAI) -> None:
        plain = client.embeddings.create(model=MODEL, input=[A, B], encoding_format="float").data[0].embedding
        packed: Any = client.with_raw_response.embeddings.create(model=MODEL, input=[A, B], encoding_format="base64").http_response.json()[
            "data"
        ][0]["embedding"]
        assert struct.unpack(f"<{len(plain)}f", base64.b64decode(packed)) == pytest.approx(plain, abs=1e-5)

    @pytest.mark.parametrize(
        ("status", "path", "body"),
        [
            (404, "/v1/embeddings", {"model": "nope", "input": "a"}),
            (400, "/v1/embeddings", {"model": MODEL}),
            (400, "/v1/embeddings", {"model": MODEL, "input": "word " * 3000}),
            (400, "/v1/embeddings", {"model": MODEL, "input": [999999]}),
            ((400, 404), "/v1/chat/completions", {"model": MODEL, "messages": user()}),
            ((400, 404), "/v1/completions", {"model": MODEL, "prompt": "a"}),
        ],
    )
    def test_an_error_harms_nobody(
        self, pair: Pair, client: openai.OpenAI, status: int | tuple[int, ...], path: str, body: dict[str, Any]
    ) -> None:
        answer = pair.ours.api.post(path, body)
        assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
        assert client.embeddings.create(model=MODEL, input="Hello!").data
