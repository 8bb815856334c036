import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from ray_serve_cai.engines import report
from ray_serve_cai.engines.base import ASGIApp, EngineInfo, Receive, Scope, Send
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import VLLM
from ray_serve_cai.errors import EngineError

replica = pytest.importorskip("ray_serve_cai.engines.replica", reason="ray[serve] is not installed", exc_type=ImportError)

CONFIG = EngineConfig(info=VLLM, name="demo", model="/models/demo", arguments={}, ranks=2, gpus=2, cpus=1.5, replicas=3, drain_s=7)
ALONE = CONFIG.model_copy(update={"ranks": 1, "gpus": 1})
"""Of one process, which starts no other one to clean up after it."""

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
    assert replica.placement(CONFIG) == {
        "ray_actor_options": {
            "num_cpus": 1.5,
            "num_gpus": 2,
            "label_selector": {"rscai/engine.vllm": "true", "rscai/role": "worker"},
            "fallback_strategy": [{"label_selector": {"rscai/engine.vllm": "true"}}],
        }
    }


def test_a_replica_on_several_nodes_takes_an_equal_share_of_each() -> None:
    assert replica.placement(CONFIG.model_copy(update={"nodes": 2, "ranks": 2, "gpus": 4})) == {
        "ray_actor_options": {"num_cpus": 1.5, "num_gpus": 2},
        "placement_group_bundles": [{"CPU": 1.5, "GPU": 2}] * 2,
        "placement_group_strategy": "STRICT_SPREAD",
        "placement_group_bundle_label_selector": [{"rscai/engine.vllm": "true"}] * 2,
    }


def test_a_cluster_without_labels_is_asked_for_none() -> None:
    bare = CONFIG.model_copy(update={"labelled": False})
    assert replica.placement(bare) == {"ray_actor_options": {"num_cpus": 1.5, "num_gpus": 2}}
    assert "placement_group_bundle_label_selector" not in replica.placement(bare.model_copy(update={"nodes": 2}))


def test_the_deployment() -> None:
    deployment = replica.ReplicaFactory().create_deployment(CONFIG)._bound_deployment
    assert (deployment.name, deployment.num_replicas, deployment.max_ongoing_requests) == ("engine", 3, 4096)
    assert deployment.user_config == {"max_concurrent": 1024, "max_queued": 1024, "alone": False}
    assert deployment.ray_actor_options.items() >= replica.placement(CONFIG)["ray_actor_options"].items()
    assert EngineConfig.model_validate(deployment.init_args[0]) == CONFIG.heavy()
    assert deployment.init_args[1] is None


def test_a_token_goes_to_the_replica_and_into_no_dump() -> None:
    config = CONFIG.model_copy(update={"hf_token": SecretStr("hf_secret")})
    deployment = replica.ReplicaFactory().create_deployment(config)._bound_deployment
    assert "hf_secret" not in repr(deployment.init_args)
    assert deployment.init_args[1].get_secret_value() == "hf_secret"


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
    """`FakeEngine` as the engine, and what a replica reports."""

    def engine_class(info: EngineInfo) -> type[FakeEngine]:
        assert info == VLLM
        return FakeEngine

    said: list[report.StartReport] = []
    monkeypatch.setattr(replica, "engine_class", engine_class)
    monkeypatch.setattr(replica.report, "write", lambda model, what: said.append(what))
    return said


class Replica(replica.Replica):  # type: ignore[name-defined,misc]
    """Serve awaits ``__del__``; the garbage collector of a test cannot."""

    def __del__(self) -> None:
        """Nothing: tests call the coroutine themselves."""


async def test_a_replicas_life(reports: list[report.StartReport]) -> None:
    one = Replica.__new__(Replica)
    await one.__init__(ALONE.model_dump())
    assert [said.phase for said in reports] == ["loading weights", "warming up", "ready"]
    await one.check_health()
    app = await one.__serve_build_asgi_app__()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://replica") as client:
        assert (await client.get("/health")).json() == {"status": "healthy", "engine": "vllm", "model": "demo"}
    await replica.Replica.__del__(one)
    assert one._engine.went_through == ["start", "check_health", "check_health", "shutdown"]


@pytest.mark.usefixtures("reports")
async def test_a_running_replica_is_told_other_limits() -> None:
    one = Replica.__new__(Replica)
    await one.__init__(ALONE.model_dump())
    app = await one.__serve_build_asgi_app__()
    one.reconfigure({"max_concurrent": 1, "max_queued": 0, "alone": False})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://replica") as client:
        assert (await client.post("/v1/load_lora_adapter")).status_code == 409
        async with one._gate.place():
            assert (await client.post("/v1/completions", json={})).status_code == 503
        one.reconfigure({"max_concurrent": 2, "max_queued": 0, "alone": True})
        assert (await client.post("/v1/load_lora_adapter", json={})).status_code == 200


@pytest.mark.usefixtures("reports")
async def test_a_token_is_in_the_environment_of_the_engines_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_before")
    one = Replica.__new__(Replica)
    await one.__init__(ALONE.model_dump())
    assert os.environ["HF_TOKEN"] == "hf_before"
    await one.__init__(ALONE.model_dump(), SecretStr("hf_secret"))
    assert os.environ["HF_TOKEN"] == "hf_secret"


async def test_a_replica_that_does_not_start_says_why(reports: list[report.StartReport], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "fails", True)
    one = Replica.__new__(Replica)
    with pytest.raises(EngineError, match="the weights are broken"):
        await one.__init__(ALONE.model_dump())
    assert reports[-1] == report.StartReport(error="the weights are broken.", error_type="EngineError")
    await replica.Replica.__del__(one)


async def test_whatever_an_engine_raises_is_told(reports: list[report.StartReport], monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: FakeEngine, say: Callable[[str], None]) -> None:
        raise KeyError("no such\n token")

    monkeypatch.setattr(FakeEngine, "start", broken)
    one = Replica.__new__(Replica)
    with pytest.raises(KeyError):
        await one.__init__(ALONE.model_dump())
    assert reports[-1].error_type == "EngineError"
    assert reports[-1].error.startswith("model 'demo' did not start: KeyError: ")


async def test_the_warm_up_has_the_engines_own_key() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]).get(b"authorization"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    for key in ("one", ["one", "two"], None):
        await replica.warm_up(app, "demo", key)
    assert seen == [b"Bearer one", b"Bearer one", None]


class Ended(Exception):
    """In place of the end of the process."""


@pytest.fixture
def no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process would end, `Ended` is raised."""

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(replica.logging, "shutdown", lambda: None)


@pytest.mark.parametrize(
    ("started", "reason", "told"),
    [
        (False, EngineError("node 1: RuntimeError: no"), ["model 'demo' did not start: node 1: RuntimeError: no"]),
        (False, ConnectionError("node 1 is gone"), []),
        (True, EngineError("node 1: RuntimeError: no"), []),
    ],
)
@pytest.mark.usefixtures("no_end")
def test_a_replica_that_lost_ranks_ends(reports: list[report.StartReport], started: bool, reason: Exception, told: list[str]) -> None:
    one = Replica.__new__(Replica)
    one._config, one._started = ALONE, started
    with pytest.raises(Ended):
        one._lost(reason)
    assert [said.error for said in reports] == told


TAKEN = [
    "The server socket has failed to listen on any local network address. port: 8400, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
    "OSError: [Errno 98] Address already in use",
]


@pytest.mark.parametrize(("said", "taken"), [*((said, True) for said in TAKEN), ("CUDA out of memory", False), ("", False)])
def test_whether_a_port_was_taken(said: str, taken: bool) -> None:
    assert replica.port_taken(EngineError(said)) is taken


@pytest.mark.parametrize(
    ("nodes", "why", "told"), [(2, TAKEN[0], False), (2, TAKEN[1], False), (2, "CUDA out of memory", True), (1, TAKEN[0], True)]
)
async def test_a_gang_whose_port_was_taken_is_tried_again_and_reports_nothing(
    reports: list[report.StartReport], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, nodes: int, why: str, told: bool
) -> None:
    async def fail(self: FakeEngine, say: Callable[[str], None]) -> None:
        raise EngineError(why)

    monkeypatch.setattr(FakeEngine, "start", fail)
    monkeypatch.setattr(Replica, "_gather", lambda self: None)
    one = Replica.__new__(Replica)
    with pytest.raises(EngineError):
        await one.__init__(ALONE.model_copy(update={"nodes": nodes}).model_dump())
    errors = [said.error for said in reports if said.error]
    assert errors == ([why] if told else [])
    assert ("the port of its ranks was taken meanwhile; trying another" in caplog.text) is not told


@pytest.mark.usefixtures("no_end")
def test_a_further_node_that_finds_the_port_taken_reports_nothing(reports: list[report.StartReport]) -> None:
    one = Replica.__new__(Replica)
    one._config, one._started = CONFIG.model_copy(update={"nodes": 2}), False
    with pytest.raises(Ended):
        one._lost(EngineError(f"node 1: {TAKEN[1]}"))
    assert reports == []


def test_a_replica_gathers_its_other_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EngineConfig] = []
    monkeypatch.setattr(replica.gang, "seated", lambda config: (config.model_copy(update={"name": "seated"}), "lease"))
    monkeypatch.setattr(replica.gang, "Gang", lambda config, lost: made.append(config))
    one = Replica.__new__(Replica)
    one._config = ALONE
    one._gather()
    assert made == []
    one._config = CONFIG.model_copy(update={"nodes": 2})
    one._gather()
    assert [config.name for config in made] == ["seated"] == [one._config.name]
