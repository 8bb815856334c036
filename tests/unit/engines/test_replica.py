import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ray_serve_cai.engines import report
from ray_serve_cai.engines.base import ASGIApp, EngineConfig, Receive, Scope, Send
from ray_serve_cai.errors import EngineError

replica = pytest.importorskip("ray_serve_cai.engines.replica", reason="ray[serve] is not installed", exc_type=ImportError)

CONFIG = EngineConfig(engine="vllm", name="demo", model="/models/demo", arguments={}, ranks=2, gpus=2, cpus=1.5, replicas=3, drain_s=7)

Handler = Callable[[str, dict[str, Any]], Awaitable[int]]


def app_of(handler: Handler) -> ASGIApp:
    """An engine's application: the handler gets path and body and gives a status."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        status = await handler(scope["path"], json.loads(message["body"]))
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": f"status {status}".encode()})

    return app


def test_an_actor_has_exactly_its_gpus_and_prefers_workers_with_its_engine() -> None:
    assert replica.actor_options(CONFIG) == {
        "num_cpus": 1.5,
        "num_gpus": 2,
        "label_selector": {"rscai/engine": "vllm", "rscai/role": "worker"},
        "fallback_strategy": [{"label_selector": {"rscai/engine": "vllm"}}],
    }


def test_the_deployment() -> None:
    deployment = replica.ReplicaFactory().create_deployment(CONFIG)._bound_deployment
    assert (deployment.name, deployment.num_replicas, deployment.max_ongoing_requests) == ("engine", 3, 1000)
    assert deployment.ray_actor_options.items() >= replica.actor_options(CONFIG).items()
    assert EngineConfig.model_validate(deployment.init_args[0]) == CONFIG


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
async def test_an_application_answers_below_any_prefix(scope: Scope, expected: tuple[str | None, str | None]) -> None:
    seen: list[Scope] = []
    before = dict(scope)

    async def app(inner: Scope, receive: Receive, send: Send) -> None:
        seen.append(inner)

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not used")

    await replica.at_root(app)(scope, nothing, nothing)
    assert (seen[0].get("path"), seen[0].get("root_path")) == expected
    assert scope == before


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        pytest.param({"/v1/completions": 200}, ["/v1/completions"], id="generates"),
        pytest.param({"/v1/chat/completions": 200}, ["/v1/completions", "/v1/chat/completions"], id="chat only"),
        pytest.param({"/v1/embeddings": 200}, ["/v1/completions", "/v1/chat/completions", "/v1/embeddings"], id="embeds"),
    ],
)
async def test_warm_up_ends_with_the_first_request_that_is_taken(answers: dict[str, int], asked: list[str]) -> None:
    seen = []

    async def handler(path: str, body: dict[str, Any]) -> int:
        assert body["model"] == "demo"
        seen.append(path)
        return answers.get(path, 404)

    await replica.warm_up(app_of(handler), "demo")
    assert seen == asked


async def test_a_model_that_takes_no_request() -> None:
    async def handler(path: str, body: dict[str, Any]) -> int:
        return 404

    with pytest.raises(EngineError, match=r"'demo' did not generate a first token: /v1/completions -> 404 status 404; .*/score -> 404"):
        await replica.warm_up(app_of(handler), "demo")


async def test_a_model_that_fails_is_asked_once() -> None:
    async def handler(path: str, body: dict[str, Any]) -> int:
        return 500

    with pytest.raises(EngineError, match=r"first token: /v1/completions -> 500 status 500\.$"):
        await replica.warm_up(app_of(handler), "demo")


async def test_an_application_that_raises_is_an_engine_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"dead"})
        raise RuntimeError("engine is dead")

    with pytest.raises(EngineError, match="500 dead"):
        await replica.warm_up(app, "demo")


async def test_an_application_that_hangs_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "WARM_UP_TIMEOUT_S", 0.01)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.2)

    with pytest.raises(EngineError, match="did not generate a first token"):
        await replica.warm_up(app, "demo")


class FakeEngine:
    """`LLMEngineProtocol`, with what it went through."""

    fails = False

    def __init__(self, config: EngineConfig) -> None:
        self.went_through: list[str] = []

    async def start(self, say: Callable[[str], None]) -> None:
        if self.fails:
            raise EngineError("the weights are broken.")
        self.went_through.append("start")

    def asgi_app(self) -> ASGIApp:
        async def handler(path: str, body: dict[str, Any]) -> int:
            return 200

        return app_of(handler)

    async def check_health(self) -> None:
        self.went_through.append("check_health")

    async def shutdown(self) -> None:
        self.went_through.append("shutdown")


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[report.StartReport]:
    """A registry with `FakeEngine`, and what a replica reports."""

    class Registry:
        def engine_class(self, name: str) -> type[FakeEngine]:
            assert name == "vllm"
            return FakeEngine

    said: list[report.StartReport] = []
    monkeypatch.setattr(replica, "get_registry", Registry)
    monkeypatch.setattr(replica.report, "write", lambda model, what: said.append(what))
    return said


class Replica(replica.Replica):  # type: ignore[name-defined,misc]
    """Serve awaits ``__del__``; the garbage collector of a test cannot."""

    def __del__(self) -> None:
        """Nothing: tests call the coroutine themselves."""


async def test_a_replicas_life(reports: list[report.StartReport]) -> None:
    one = Replica.__new__(Replica)
    await one.__init__(CONFIG.model_dump())
    assert [said.phase for said in reports] == ["loading weights", "warming up", "ready"]
    await one.check_health()
    assert callable(await one.__serve_build_asgi_app__())
    await replica.Replica.__del__(one)
    assert one._engine.went_through == ["start", "check_health", "shutdown"]


async def test_a_replica_that_does_not_start_says_why(reports: list[report.StartReport], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "fails", True)
    one = Replica.__new__(Replica)
    with pytest.raises(EngineError, match="the weights are broken"):
        await one.__init__(CONFIG.model_dump())
    assert reports[-1] == report.StartReport(error="the weights are broken.", error_type="EngineError")
    await replica.Replica.__del__(one)
