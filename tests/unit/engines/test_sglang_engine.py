"""The parts of the adapter that need no SGLang; the engine itself is tested where it is installed."""

from typing import Any

import httpx
import pytest

from ray_serve_cai.engines.base import ASGIApp, LLMEngineProtocol, Receive, Scope, Send
from ray_serve_cai.engines.engine_config import EngineConfig, start_error
from ray_serve_cai.engines.middleware import respond
from ray_serve_cai.engines.registry import SGLANG
from ray_serve_cai.engines.sglang_engine import SGLangEngine, known_models_only
from ray_serve_cai.errors import ConfigError, EngineError

CONFIG = EngineConfig(info=SGLANG, name="demo", model="/models/demo", arguments={})


def test_it_is_an_engine() -> None:
    engine = SGLangEngine(CONFIG)
    assert isinstance(engine, LLMEngineProtocol)
    assert (engine.engine_type, engine.model_name) == ("sglang", "demo")


async def test_an_engine_that_has_not_started() -> None:
    engine = SGLangEngine(CONFIG)
    with pytest.raises(EngineError, match="'demo' has not started"):
        engine.asgi_app()
    with pytest.raises(EngineError, match="'demo' has not started"):
        await engine.check_health()
    await engine.shutdown()


@pytest.mark.parametrize(("error", "kind"), [(ValueError("a\n  b"), ConfigError), (RuntimeError("a\nb"), EngineError)])
def test_sglangs_own_error_becomes_one_line(error: Exception, kind: type[Exception]) -> None:
    explained = start_error("SGLang", CONFIG, error)
    assert type(explained) is kind
    assert str(explained) == "SGLang did not start model 'demo' from /models/demo: a b"
    assert len(str(start_error("SGLang", CONFIG, RuntimeError("x" * 5000)))) < 700


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that gives back the length of the body it reads, message by message."""
    size, more = 0, scope["method"] == "POST"
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message.get("more_body", False)
    await respond(send, 200, {"bytes": size})


def checked() -> ASGIApp:
    return known_models_only(echo, lambda: {"demo", "lora"})


async def ask(path: str, method: str = "POST", **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=checked()), base_url="http://replica") as client:
        return await client.request(method, path, **body)


@pytest.mark.parametrize("model", ["demo", "lora", "demo:lora"])
async def test_a_known_model_reaches_the_engine_with_its_whole_body(model: str) -> None:
    answer = await ask("/v1/completions", json={"model": model, "prompt": "x" * 5000})
    assert answer.status_code == 200
    assert answer.json()["bytes"] == int(answer.request.headers["content-length"])


@pytest.mark.parametrize("model", ["other", "demo:other", "other:lora", "demo:"])
async def test_an_unknown_model_is_404_in_openais_shape(model: str) -> None:
    answer = await ask("/v1/chat/completions", json={"model": model})
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 404
    assert error["message"] == f"The model `{model}` does not exist. Valid aliases: demo, lora."


@pytest.mark.parametrize("content", [b"", b"{bad", b"\xff", b"[1]", b'{"model": 5}', b'{"model": null}', b'{"prompt": "a"}'])
async def test_a_body_without_a_model_is_the_engines_to_judge(content: bytes) -> None:
    assert (await ask("/v1/completions", content=content)).json() == {"bytes": len(content)}


@pytest.mark.parametrize(("path", "method"), [("/v1/models", "GET"), ("/generate", "POST")])
async def test_other_requests_are_not_looked_at(path: str, method: str) -> None:
    assert (await ask(path, method)).status_code == 200


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

    await known_models_only(app, lambda: {"demo"})({"type": "http", "method": "POST", "path": "/v1/completions"}, receive, send)
    assert seen == ["http.request", "http.disconnect"]
