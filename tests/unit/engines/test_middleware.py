import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from ray_serve_cai.engines import middleware, refusals
from ray_serve_cai.engines.base import ASGIApp, Receive, Scope, Send
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.gate import Gate
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
                await refusals.respond(send, 200, {"engine saw": scope["path"]})

        return app

    async def check_health(self) -> None:
        if self.error:
            raise self.error


def replica(engine: Engine, **changes: Any) -> ASGIApp:
    config = CONFIG.model_copy(update=changes)
    return middleware.around(engine.asgi_app(), engine, config, Gate(config.limits))


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
        scope = scope | {"method": "GET", "headers": []}
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
    assert f"{LOAD} changes only the replica that it reaches, and model 'demo' may have several; " in error["message"]
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

    await replica(engine)({"type": "http", "method": "GET", "path": "/v1/models", "headers": headers}, unused, unused)
    assert engine.scopes[0]["headers"] == left


async def test_a_refusal_counts_below_a_prefix_too() -> None:
    answer = await ask(replica(Engine(), replicas=2), f"/models/demo{LOAD}", "POST", root_path="/models/demo")
    assert answer.status_code == 409


class Busy(Engine):
    """An engine that answers completions once ``go`` is set, and says that it works on something."""

    def __init__(self) -> None:
        super().__init__()
        self.working, self.go = asyncio.Event(), asyncio.Event()

    def asgi_app(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            if scope["path"] == "/v1/completions":
                self.working.set()
                await self.go.wait()
            await refusals.respond(send, 200, {"engine saw": scope["path"]})

        return app


@contextlib.asynccontextmanager
async def at_the_limit(max_queued: int = 0) -> AsyncIterator[tuple[Busy, ASGIApp]]:
    """A replica of which two requests have the whole attention, and as many wait as may; all are answered in the end."""
    engine = Busy()
    app = replica(engine, max_concurrent=2, max_queued=max_queued)
    asked = [asyncio.create_task(ask(app, "/v1/completions", "POST")) for _ in range(2 + max_queued)]
    await engine.working.wait()
    for _ in range(20):  # each client comes as far as it can
        await asyncio.sleep(0)
    yield engine, app
    engine.go.set()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * len(asked)


@pytest.mark.parametrize("max_queued", [0, 3])
async def test_what_is_beyond_the_limit_is_told_to_come_again(max_queued: int) -> None:
    async with at_the_limit(max_queued) as (engine, app):
        answer = await ask(app, "/models/demo/v1/chat/completions", "POST", root_path="/models/demo")
        assert len(engine.scopes) == 2
    later = answer.headers["retry-after"]
    assert answer.status_code == 503
    assert 1 <= int(later) <= 60
    assert answer.json()["error"] == {
        "message": f"Model 'demo' is at its limit: 2 requests at a time, {max_queued} waiting; try again in {later} s.",
        "type": "service_unavailable",
        "param": None,
        "code": 503,
    }


async def test_anthropics_clients_are_refused_in_their_own_form() -> None:
    async with at_the_limit() as (_, app):
        answer = await ask(app, "/v1/messages", "POST")
    assert (answer.status_code, answer.json()["type"], answer.json()["error"]["type"]) == (503, "error", "overloaded_error")
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(("path", "method"), [("/health", "GET"), ("/v1/models", "GET"), ("/metrics", "GET"), ("/adapters/x", "DELETE")])
async def test_at_the_limit_what_only_reads_is_answered(path: str, method: str) -> None:
    async with at_the_limit() as (_, app):
        assert (await ask(app, path, method)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/responses/resp_1/cancel", "/models/demo/v1/responses/resp_1/cancel", "/abort_request"])
async def test_at_the_limit_what_ends_other_requests_passes(path: str) -> None:
    async with at_the_limit() as (_, app):
        prefix = "/models/demo" if path.startswith("/models/demo") else ""
        assert (await ask(app, path, "POST", root_path=prefix)).json() == {"engine saw": path.removeprefix(prefix)}
        assert (await ask(app, f"{path}/more", "POST", root_path=prefix)).status_code == 503


async def test_at_the_limit_a_websocket_passes() -> None:
    async with at_the_limit() as (engine, app):
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("nothing here reads")

        await app({"type": "websocket", "path": "/v1/realtime"}, receive, send)
        assert engine.scopes[-1]["type"] == "websocket"


async def test_a_place_that_is_free_again_is_given_again() -> None:
    engine = Engine()
    app = replica(engine, max_concurrent=1, max_queued=0)
    assert [(await ask(app, "/v1/completions", "POST")).status_code for _ in range(3)] == [200] * 3


async def test_an_application_that_fails_gives_its_place_back() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("boom")

    config = CONFIG.model_copy(update={"max_concurrent": 1, "max_queued": 0})
    app = middleware.around(broken, Engine(), config, Gate(config.limits))
    for _ in range(3):
        with pytest.raises(KeyError):
            await ask(app, "/v1/completions", "POST")
