import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from ray_serve_cai.engines import middleware
from ray_serve_cai.engines.base import ASGIApp, Receive, Scope, Send
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM

CONFIG = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={})
LOAD = "/v1/load_lora_adapter"


class Engine:
    """An engine whose health a test decides; its application answers every path with the scope's path."""

    engine_type = "vllm"
    model_name = "demo"

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.scopes: list[Scope] = []

    async def start(self, report: Callable[[str], None]) -> None:
        raise AssertionError("not used")

    async def shutdown(self) -> None:
        raise AssertionError("not used")

    def asgi_app(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            if scope["type"] == "http":
                await middleware.respond(send, 200, {"engine saw": scope["path"]})

        return app

    async def check_health(self) -> None:
        if self.error:
            raise self.error


def replica(engine: Engine, **changes: Any) -> ASGIApp:
    return middleware.around(engine.asgi_app(), engine, CONFIG.model_copy(update=changes))


async def ask(app: ASGIApp, path: str, method: str = "GET", root_path: str = "") -> httpx.Response:
    transport = httpx.ASGITransport(app=app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        return await client.request(method, path)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param({"type": "http", "path": "/models/a/v1/models", "root_path": "/models/a"}, ("/v1/models", ""), id="below"),
        pytest.param({"type": "http", "path": "/models/a", "root_path": "/models/a"}, ("/", ""), id="itself"),
        pytest.param({"type": "websocket", "path": "/models/a/v1/x", "root_path": "/models/a"}, ("/v1/x", ""), id="websocket"),
        pytest.param({"type": "http", "path": "/v1/models", "root_path": ""}, ("/v1/models", ""), id="at the root"),
        pytest.param({"type": "http", "path": "/v1/models"}, ("/v1/models", None), id="no prefix named"),
        pytest.param({"type": "http", "path": "/v1/models", "root_path": "/models/a"}, ("/v1/models", "/models/a"), id="prefix cut off"),
        pytest.param({"type": "lifespan"}, (None, None), id="lifespan"),
    ],
)
async def test_an_engine_answers_below_any_prefix(scope: Scope, expected: tuple[str | None, str | None]) -> None:
    if scope["type"] == "http":
        scope = scope | {"headers": []}
    engine, before = Engine(), dict(scope)

    async def receive() -> Any:
        raise AssertionError("nothing here reads a body")

    async def send(_: Any) -> None:
        """Whatever is answered."""

    await replica(engine)(scope, receive, send)
    assert (engine.scopes[0].get("path"), engine.scopes[0].get("root_path")) == expected
    assert engine.scopes[0].get("raw_path") is None
    assert scope == before


@pytest.mark.parametrize(("path", "root_path"), [("/health", ""), ("/models/demo/health", "/models/demo")])
async def test_health_of_an_engine_that_works(path: str, root_path: str) -> None:
    engine = Engine()
    answer = await ask(replica(engine), path, root_path=root_path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"status": "healthy", "engine": "vllm", "model": "demo"}
    assert answer.headers["content-length"] == str(len(answer.content))
    assert engine.scopes == []


async def test_health_of_an_engine_that_is_dead() -> None:
    engine = Engine()
    engine.error = ValueError("rank 1 is gone")
    answer = await ask(replica(engine), "/health")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unhealthy", "engine": "vllm", "model": "demo", "detail": "ValueError: rank 1 is gone"}


async def test_a_client_that_leaves_is_no_illness() -> None:
    engine = Engine()
    engine.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await ask(replica(engine), "/health")


async def test_what_would_change_one_of_several_replicas_is_refused() -> None:
    engine = Engine()
    answer = await ask(replica(engine, replicas=3), LOAD, "POST")
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 409
    assert error["type"] == "invalid_request_error"
    assert f"{LOAD} changes only the replica that it reaches, and model 'demo' has 3 replicas" in error["message"]
    assert "serve one replica" in error["message"]
    assert engine.scopes == []


@pytest.mark.parametrize(("replicas", "path"), [(1, LOAD), (3, "/v1/models"), (3, LOAD + "s")])
async def test_everything_else_is_the_engines(replicas: int, path: str) -> None:
    answer = await ask(replica(Engine(), replicas=replicas), path)
    assert answer.json() == {"engine saw": path}


async def test_a_refusal_counts_for_what_lies_below_a_path() -> None:
    assert (await ask(replica(Engine(), replicas=2), "/adapters/mine", "DELETE")).status_code == 409


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ([(b"x-request-id", b"mine"), (b"accept", b"*/*")], [(b"x-request-id", b"mine"), (b"accept", b"*/*")]),
        ([(b"x-rscai-no-request-id", b"1"), (b"accept", b"*/*"), (b"x-request-id", b"serves-own")], [(b"accept", b"*/*")]),
    ],
    ids=["the client's own id stays", "an id that Serve made up goes"],
)
async def test_ids_of_requests(headers: list[tuple[bytes, bytes]], left: list[tuple[bytes, bytes]]) -> None:
    engine = Engine()

    async def unused(*_: Any) -> Any:
        """The engine of this test reads and answers nothing."""

    await replica(engine)({"type": "http", "path": "/v1/models", "headers": headers}, unused, unused)
    assert engine.scopes[0]["headers"] == left


async def test_a_refusal_counts_below_a_prefix_too() -> None:
    answer = await ask(replica(Engine(), replicas=2), f"/models/demo{LOAD}", "POST", root_path="/models/demo")
    assert answer.status_code == 409


def test_an_answer_is_json_bytes() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(middleware.respond(send, 418, {"a": "ä"}))
    assert sent[0]["status"] == 418
    assert json.loads(sent[1]["body"]) == {"a": "ä"}
