"""What does not reach SGLang, and in which words it is refused."""

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_serve_cai.engines.base import Receive, Scope, Send
from ray_serve_cai.engines.refusals import respond
from ray_serve_cai.engines.sglang_requests import MAX_N, Served, guarded, refusal

SERVED = Served("demo", frozenset({"lora"}), 768)
CHAT = "/v1/chat/completions"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that gives back the length of the body it reads, message by message."""
    size, more = 0, scope["method"] == "POST"
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message.get("more_body", False)
    await respond(send, 200, {"bytes": size})


async def ask(path: str, method: str = "POST", **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=guarded(echo, lambda: SERVED)), base_url="http://replica") as client:
        return await client.request(method, path, **body)


@pytest.mark.parametrize("model", ["demo", "demo:lora", None, ""])
async def test_a_known_model_reaches_the_engine_with_its_whole_body(model: str | None) -> None:
    answer = await ask("/v1/completions", json={"model": model, "prompt": "x" * 5000})
    assert answer.status_code == 200
    assert answer.json()["bytes"] == int(answer.request.headers["content-length"])


@pytest.mark.parametrize("model", ["other", "demo:other", "other:lora", "demo:", "default"])
async def test_an_unknown_model_is_404_in_openais_form(model: str) -> None:
    answer = await ask(CHAT, json={"model": model})
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 404
    assert error["message"] == f"The model `{model}` does not exist. Valid aliases: demo, demo:lora."


def test_an_adapters_bare_name_says_how_it_is_named() -> None:
    refused = refusal(CHAT, {"model": "lora"}, SERVED)
    assert refused is not None
    assert refused.message == "The model `lora` is an adapter; name it `demo:lora`."


def test_a_models_name_may_have_colons() -> None:
    served = Served("s3://bucket/a:b", frozenset({"lora"}), 10)
    assert refusal(CHAT, {"model": "s3://bucket/a:b"}, served) is None
    assert refusal(CHAT, {"model": "s3://bucket/a:b:lora"}, served) is None
    assert refusal(CHAT, {"model": "s3://bucket/a"}, served) is not None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/messages",
            {
                "type": "error",
                "error": {"type": "not_found_error", "message": "The model `x` does not exist. Valid aliases: demo, demo:lora."},
            },
        ),
        ("/api/chat", {"error": "The model `x` does not exist. Valid aliases: demo, demo:lora."}),
    ],
)
async def test_the_form_is_that_of_the_api(path: str, body: object) -> None:
    answer = await ask(path, json={"model": "x"})
    assert (answer.status_code, answer.json()) == (404, body)


@pytest.mark.parametrize(
    ("path", "document", "message"),
    [
        ("/v1/completions", {"prompt": [768]}, "prompt has token id 768, and the vocabulary is 0 to 767."),
        ("/v1/completions", {"prompt": [3, -1]}, "prompt has token id -1, and the vocabulary is 0 to 767."),
        ("/v1/completions", {"prompt": [[1], [900.0]]}, "prompt has token id 900.0, and the vocabulary is 0 to 767."),
        ("/v1/embeddings", {"input": [[1, 2], [1000]]}, "input has token id 1000, and the vocabulary is 0 to 767."),
        ("/generate", {"input_ids": [10**9]}, "input_ids has token id 1000000000, and the vocabulary is 0 to 767."),
        (CHAT, {"top_logprobs": 769}, "top_logprobs must be at most 768, the size of the vocabulary, got 769."),
        ("/v1/completions", {"logprobs": 100000}, "logprobs must be at most 768, the size of the vocabulary, got 100000."),
        ("/generate", {"top_logprobs_num": [1, 5000]}, "top_logprobs_num must be at most 768, the size of the vocabulary, got [1, 5000]."),
        (CHAT, {"n": MAX_N + 1}, f"n must be at most {MAX_N}, got {MAX_N + 1}."),
        ("/generate", {"sampling_params": {"n": 10**6}}, f"n must be at most {MAX_N}, got 1000000."),
        ("/generate", {"sampling_params": [{}, {"n": 10**6}]}, f"n must be at most {MAX_N}, got 1000000."),
    ],
)
async def test_what_would_end_the_engine_is_400(path: str, document: dict[str, Any], message: str) -> None:
    answer = await ask(path, json=document)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
    assert answer.json()["error"]["param"] == message.split(maxsplit=1)[0]


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": [0, 767]},
        {"prompt": ["a", "b"]},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [["a"]]},
        {"prompt": [None]},
        {"logprobs": 768},
        {"logprobs": True},
        {"n": MAX_N},
        {"n": "many"},
        {"sampling_params": None},
        {"sampling_params": [None]},
    ],
)
def test_the_rest_is_the_engines_to_judge(document: dict[str, Any]) -> None:
    assert refusal("/v1/completions", document, SERVED) is None


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/api/chat", "/generate", "/invocations"])
def test_a_model_that_embeds_does_not_generate(path: str) -> None:
    served = Served("demo", frozenset(), 768, generates=False)
    refused = refusal(path, {"model": "demo"}, served)
    assert refused is not None
    assert (refused.status, refused.message) == (400, "The model `demo` embeds and does not generate text; ask /v1/embeddings.")
    assert refusal("/v1/embeddings", {"model": "demo", "input": "a"}, served) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
fields = st.sampled_from(
    ["model", "prompt", "input", "input_ids", "n", "logprobs", "top_logprobs", "top_logprobs_num", "sampling_params", "items"]
)


@given(path=st.sampled_from([CHAT, "/generate", "/api/chat", "/v1/messages"]), document=st.dictionaries(fields, json_values, max_size=4))
def test_any_document_gets_a_verdict(path: str, document: dict[str, Any]) -> None:
    refused = refusal(path, document, SERVED)
    if refused:
        assert refused.status in (400, 404)
        assert refused.message
        assert "error" in refused.document(path)


@pytest.mark.parametrize("content", [b"", b"{bad", b"\xff", b"[1]", b'{"model": 5}', b'{"model": null}', b'{"prompt": "a"}'])
async def test_a_body_without_a_model_is_the_engines_to_judge(content: bytes) -> None:
    assert (await ask("/v1/completions", content=content)).json() == {"bytes": len(content)}


@pytest.mark.parametrize(("path", "method"), [("/v1/models", "GET"), ("/flush_cache", "POST")])
async def test_other_requests_are_not_looked_at(path: str, method: str) -> None:
    assert (await ask(path, method)).status_code == 200


async def test_a_file_is_not_read() -> None:
    assert (await ask("/v1/audio/transcriptions", files={"file": b"x" * 1000}, data={"model": "nope"})).status_code == 200


async def test_a_body_in_pieces_arrives_whole() -> None:
    async def pieces() -> Any:
        for piece in (b'{"model": ', b'"demo", "prompt": ', b'"a"}'):
            yield piece

    assert (await ask("/v1/completions", content=pieces())).json() == {"bytes": 32}


async def test_a_client_that_leaves_while_it_sends() -> None:
    waiting = [{"type": "http.request", "body": b'{"mod', "more_body": True}, {"type": "http.disconnect"}]
    seen: list[str] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([(await receive())["type"], (await receive())["type"]])

    await guarded(app, lambda: SERVED)({"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}, receive, send)
    assert seen == ["http.request", "http.disconnect"]


async def test_a_lifespan_that_has_begun_is_not_begun_again() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("SGLang's application is asked once more")

    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    answers: list[str] = []

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        answers.append(message["type"])

    await guarded(app, lambda: SERVED)({"type": "lifespan"}, receive, send)
    assert answers == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
