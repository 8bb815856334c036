"""What each call of `RayBackend` gives, with Ray and Serve replaced at the package's own seams."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ray_serve_cai import RayBackend, ray_session
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.errors import EngineError, RayServeCaiError, ResourceError, UnavailableError
from ray_serve_cai.node import manifest
from ray_serve_cai.ray_backend import APPLICATION
from ray_serve_cai.ray_session import Connection
from ray_serve_cai.serving import direct, replica_logs
from ray_serve_cai.serving.direct import ApplicationStatus, DeploymentStatus

NODE = {"Alive": True, "Resources": {"CPU": 4}, "Labels": {"rscai/engine.vllm": "true"}}
RUNNING = ApplicationStatus("RUNNING", "", (DeploymentStatus("engine", "HEALTHY", ""),))


class Cluster:
    """Ray and Serve as `RayBackend` sees them: what was asked of them, and what they answer."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.serves: tuple[str, int] | None = None
        self.deployed: EngineConfig | None = None
        self.application: ApplicationStatus | None = None
        self.connection = Connection("local", "10.0.0.5:6379", 1)
        self.fails: dict[str, RayServeCaiError] = {}

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.fails:
            raise self.fails[what]

    def connect(self, address: str | None = None) -> Connection:
        self._do("connect")
        return self.connection

    def disconnect(self) -> None:
        self._do("disconnect")

    def nodes(self) -> list[dict[str, Any]]:
        return [NODE]

    def start_serve(self, host: str, port: int) -> None:
        self._do("start_serve")
        self.serves = (host, port)

    def deploy(self, application: str, config: EngineConfig, progress: Callable[[str], None]) -> None:
        assert application == APPLICATION
        progress("loading weights")
        self._do("deploy")
        self.deployed, self.application = config, RUNNING

    def status(self, application: str) -> ApplicationStatus | None:
        self._do("status")
        return self.application

    def delete(self, application: str) -> None:
        self._do("delete")
        self.application = None

    def stop_serve(self) -> bool:
        self._do("stop_serve")
        return True

    def read(self, application: str, tail: int) -> list[str]:
        self._do("read")
        return ["one", "two"][-tail:]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    made = Cluster()
    for name in ("connect", "disconnect"):
        monkeypatch.setattr(ray_session, name, getattr(made, name))
    for name in ("nodes", "start_serve", "deploy", "status", "delete", "stop_serve"):
        monkeypatch.setattr(direct, name, getattr(made, name))
    monkeypatch.setattr(replica_logs, "read", made.read)
    monkeypatch.setattr(manifest, "PATH", tmp_path / "no-manifest.json")
    return made


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """A configuration whose model is on disk."""
    (tmp_path / "config.json").write_text("{}")
    return {"model": "demo", "model_source": str(tmp_path), "port": 8123}


async def test_connecting(cluster: Cluster) -> None:
    backend = RayBackend()
    assert backend.ray_available
    assert await backend.initialize_ray() == {"initialized": True, "mode": "local", "address": "10.0.0.5:6379", "nodes": 1}
    cluster.fails["connect"] = UnavailableError("no cluster.")
    assert await backend.initialize_ray("far:1") == {"initialized": False, "error": "UnavailableError", "message": "no cluster."}


async def test_starting_watching_and_stopping(cluster: Cluster, model: dict[str, Any]) -> None:
    backend = RayBackend()
    absent = {"running": False, "status": "not_running", "application_name": APPLICATION, "deployments": []}
    assert await backend.get_status() == absent
    named = {"engine": "vllm", "application_name": APPLICATION, "port": 8123, "model": "demo"}
    assert await backend.start_model(model) == {"started": True, "status": "running"} | named
    assert cluster.done == ["connect", "start_serve", "deploy"]
    assert cluster.deployed is not None
    assert (cluster.deployed.model, cluster.deployed.gpus, cluster.deployed.labelled) == (model["model_source"], 0, True)
    assert cluster.deployed.arguments["enforce_eager"] is True
    deployments = [{"name": "engine", "status": "HEALTHY", "message": ""}]
    assert await backend.get_status() == {"running": True, "status": "running", "deployments": deployments} | named
    assert [line async for line in backend.get_logs(tail=1)] == ["two"]
    assert await backend.stop_model() == {"stopped": True, "status": "stopped", "application_name": APPLICATION}
    assert await backend.get_status() == absent
    assert await backend.stop_model() == {"stopped": True, "status": "not_running", "application_name": APPLICATION}


@pytest.mark.parametrize(
    ("parameter", "key", "default", "engine"),
    [
        ("vllm", "sglang", "sglang", "vllm"),
        (None, "vllm", "sglang", "vllm"),
        (None, None, "vllm", "vllm"),
        (None, None, None, "vllm"),
        (None, "", None, "vllm"),
    ],
)
async def test_the_engine(
    cluster: Cluster, model: dict[str, Any], parameter: str | None, key: str | None, default: str | None, engine: str
) -> None:
    started = await RayBackend(default).start_model(model | {"engine": key}, engine=parameter)
    assert started["engine"] == engine


async def test_an_engine_that_no_node_has(cluster: Cluster, model: dict[str, Any]) -> None:
    started = await RayBackend("sglang").start_model(model)
    assert (started["started"], started["error"]) == (False, "ConfigError")
    assert started["message"].startswith("engine 'sglang' is installed on no node; installed: vllm;")
    assert "deploy" not in cluster.done


@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"engine": "vlm"}, "ConfigError", "engine is 'vlm', which is not registered; did you mean vllm?"),
        ({"prt": 1}, "ConfigError", "prt: unknown key; did you mean port?"),
        ({"dtype": "int4"}, "ConfigError", "dtype: 'int4'"),
        ({"engine_args": {"port": 1}}, "ConfigError", "engine_args.port: 1 cannot be set here"),
        ({"model_source": "/no/such/model"}, "ModelNotFoundError", "'/no/such/model'"),
        ({"tensor_parallel_size": 2, "use_cpu": False}, "ResourceError", "needs 1 node with 2 GPUs; the cluster has 1 with none; "),
    ],
)
async def test_what_is_wrong_is_said_before_anything_is_started(
    cluster: Cluster, model: dict[str, Any], changes: dict[str, Any], error: str, part: str
) -> None:
    started = await RayBackend().start_model(model | changes)
    assert (started["started"], started["error"]) == (False, error)
    assert part in started["message"]
    assert cluster.done == ["connect"]


async def test_no_mapping(cluster: Cluster) -> None:
    started = await RayBackend().start_model("demo")  # type: ignore[arg-type]
    assert started["message"] == "the configuration is str; use a mapping, for example {'model': 'demo'}."


@pytest.mark.parametrize(
    ("step", "error"), [("connect", UnavailableError("x")), ("start_serve", ResourceError("x")), ("deploy", EngineError("x"))]
)
async def test_a_step_that_fails(cluster: Cluster, model: dict[str, Any], step: str, error: RayServeCaiError) -> None:
    cluster.fails[step] = error
    assert await RayBackend().start_model(model) == {"started": False, "error": type(error).__name__, "message": "x"}


async def test_a_token_reaches_the_deployment_and_no_log(cluster: Cluster, model: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    started = await RayBackend().start_model(model | {"hf_token": "hf_secret"})
    assert cluster.deployed is not None
    assert cluster.deployed.hf_token is not None
    assert cluster.deployed.hf_token.get_secret_value() == "hf_secret"
    assert "hf_secret" not in f"{started} {caplog.text}"


@pytest.mark.parametrize(
    ("mode", "in_image", "variable", "host"),
    [
        ("local", False, "", "127.0.0.1"),
        ("local", True, "", "0.0.0.0"),
        ("connected", False, "", "0.0.0.0"),
        ("local", False, "10.0.0.5", "10.0.0.5"),
    ],
)
async def test_where_the_api_listens(
    cluster: Cluster, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mode: Any, in_image: bool, variable: str, host: str
) -> None:
    cluster.connection = Connection(mode, "10.0.0.5:6379", 1)
    monkeypatch.setenv("RSCAI_HOST", variable)
    if in_image:
        manifest.PATH.write_text("{}")
    await RayBackend().start_model(model)
    assert cluster.serves == (host, 8123)


@pytest.fixture
def api() -> Iterator[int]:
    """An HTTP API that is healthy from the third question on."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if len(asked) > 2 and self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def test_waiting_until_it_answers(cluster: Cluster, model: dict[str, Any], api: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ray_serve_cai.ray_backend"], "POLL_S", 0.01)  # the attribute of the package is the instance
    started = await RayBackend().start_model(model | {"port": api}, wait_ready=True)
    assert (started["started"], started["ready"], started["port"]) == (True, True, api)
    assert started["elapsed_time"] >= 0


async def test_waiting_has_an_end(api: int, free_port: int) -> None:
    late = await RayBackend().wait_for_ready(api, timeout=0)
    assert late.items() >= {"ready": False, "error": "timeout", "last_error": f"http://127.0.0.1:{api}/health answered 503"}.items()
    nobody = await RayBackend().wait_for_ready(free_port, timeout=0)
    assert nobody["last_error"] == f"http://127.0.0.1:{free_port}/health: ConnectError"


async def test_serve_that_does_not_answer(cluster: Cluster, model: dict[str, Any]) -> None:
    backend = RayBackend()
    await backend.start_model(model)
    cluster.fails |= {"status": UnavailableError("gone."), "read": UnavailableError("no logs.")}
    failure = {"error": "UnavailableError", "message": "gone."}
    assert (await backend.get_status()).items() >= ({"running": False, "status": "unknown"} | failure).items()
    assert await backend.stop_model() == {"stopped": False, "application_name": APPLICATION} | failure
    assert [line async for line in backend.get_logs()] == ["no logs."]


@pytest.mark.parametrize("mode", ["local", "connected", "already_initialized"])
async def test_shutting_down_leaves_ray_to_who_started_it(cluster: Cluster, model: dict[str, Any], mode: Any) -> None:
    cluster.connection = Connection(mode, "10.0.0.5:6379", 1)
    backend = RayBackend()
    await backend.start_model(model)
    await backend.shutdown()
    assert ("disconnect" in cluster.done) == (mode != "already_initialized")
    assert cluster.done.count("delete") == cluster.done.count("stop_serve") == 1
    before = list(cluster.done)
    await backend.shutdown()
    assert cluster.done == before
    assert [line async for line in backend.get_logs()] == []


def test_closing_from_plain_code(cluster: Cluster) -> None:
    backend = RayBackend()
    asyncio.run(backend.initialize_ray())
    backend.close()
    assert "disconnect" in cluster.done


async def test_closing_inside_an_event_loop_is_begun(cluster: Cluster) -> None:
    backend = RayBackend()
    await backend.initialize_ray()
    backend.close()
    assert "disconnect" not in cluster.done
    await backend._closing
    assert "disconnect" in cluster.done
