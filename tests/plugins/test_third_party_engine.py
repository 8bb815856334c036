"""docs/examples/echo_engine, an engine that another distribution brings: installed, found, served over HTTP, gone again.

The quick test serves it without Ray, as a replica would; the full ones install it with pip, and build it into an image.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from ray_serve_cai.engines import middleware, registry
from ray_serve_cai.engines.base import ASGIApp
from ray_serve_cai.engines.engine_config import EngineConfig, of_arguments
from ray_serve_cai.engines.registry import EngineRegistry
from ray_serve_cai.errors import ConfigError
from tests.containers import IMAGE, ROOT, Api, free_port, run, until

pytestmark = pytest.mark.issue(3)
EXAMPLE = ROOT / "docs/examples/echo_engine"
SAID = "One two, three."
CHAT = {"model": "echo", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SAID}]}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineRegistry]:
    """A new registry, with the example lying on the path as an installer would have laid it out."""
    project = (EXAMPLE / "pyproject.toml").read_text()
    name, version, point = (re.search(rf'^{key} = "(.+)"$', project, re.MULTILINE)[1] for key in ("name", "version", "echo"))  # type: ignore[index]
    shutil.copy(EXAMPLE / "echo_engine.py", tmp_path)
    information = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\necho = {point}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield registry.get_registry.__wrapped__()
    sys.modules.pop("echo_engine", None)


def config_of(engines: EngineRegistry, **user: Any) -> EngineConfig:
    builder = engines.config_builder("echo")
    return of_arguments(engines.get("echo"), builder.build_config({"model": "echo"} | user), ranks=1, use_cpu=True)


async def replica(engines: EngineRegistry, **user: Any) -> ASGIApp:
    """The application of a replica that has started."""
    config = config_of(engines, **user)
    engine = engines.engine_class("echo")(config)  # type: ignore[call-arg]
    await engine.start(lambda phase: None)
    return middleware.around(engine.asgi_app(), engine, config)


def test_it_is_found_and_installed(installed: EngineRegistry) -> None:
    assert installed.broken() == {}
    assert "echo" in installed.installed()
    assert installed.installed_version("echo") == "0.1.0"


def test_what_it_does_not_know_is_refused(installed: EngineRegistry) -> None:
    builder = installed.config_builder("echo")
    assert builder.validate_config(builder.get_default_config() | {"model": "echo", "engine_args": {"prefix": "> "}}) == (True, None)
    message = "engine_args.suffix: the echo engine has no such argument; use prefix."
    assert builder.validate_config({"model": "echo", "engine_args": {"suffix": "!"}}) == (False, message)
    with pytest.raises(ConfigError, match="port: 0"):
        builder.build_config({"model": "echo", "port": 0})


async def test_openais_client_takes_its_answers(installed: EngineRegistry) -> None:
    transport = httpx.ASGITransport(app=await replica(installed, engine_args={"prefix": "> "}))
    async with (
        httpx.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(base_url="http://replica/v1", api_key="none", http_client=http) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["echo"]
        messages: Any = CHAT["messages"]
        answer = await client.chat.completions.create(model="echo", messages=messages)
        assert answer.choices[0].message.content == f"> {SAID}"
        assert answer.choices[0].finish_reason == "stop"
        chunks = [chunk async for chunk in await client.chat.completions.create(model="echo", messages=messages, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == f"> {SAID}"


async def test_the_replica_adds_health_and_takes_a_prefix_off(installed: EngineRegistry) -> None:
    transport = httpx.ASGITransport(app=await replica(installed), root_path="/models/echo")
    async with httpx.AsyncClient(transport=transport, base_url="http://replica/models/echo") as http:
        assert (await http.get("/health")).json() == {"status": "healthy", "engine": "echo", "model": "echo"}
        assert (await http.post("/v1/chat/completions", json=CHAT)).json()["choices"][0]["message"]["content"] == SAID


async def test_the_replicas_warm_up_is_satisfied(installed: EngineRegistry) -> None:
    replicas = pytest.importorskip("ray_serve_cai.engines.replica", reason="ray[serve] is not installed", exc_type=ImportError)
    await replicas.warm_up(await replica(installed), "echo")


@pytest.mark.usefixtures("installed")
def test_the_pages_own_test_of_an_engine_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/engines.md").read_text()
    code = re.search(r"^## Testing it$.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert code
    registry.get_registry.cache_clear()
    try:
        exec(code[1], {})
    finally:
        registry.get_registry.cache_clear()
    health, answer = capsys.readouterr().out.splitlines()
    assert health == "{'status': 'healthy', 'engine': 'echo', 'model': 'echo'}"
    assert "'content': 'Hello'" in answer


def check_over_http(api: Api) -> None:
    """What a client of the served engine sees: chat, a stream, the list of models."""
    assert api.ask(SAID, model="echo") == SAID
    assert [model["id"] for model in api.get("/v1/models").json()["data"]] == ["echo"]
    with httpx.stream("POST", f"{api.url}/v1/chat/completions", json=CHAT | {"stream": True}, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert events.pop() == "[DONE]"
    assert "".join(json.loads(event)["choices"][0]["delta"]["content"] for event in events) == SAID


SERVE = """
import asyncio, json, sys
from ray_serve_cai import ray_backend

async def main():
    config = json.loads(sys.argv[1])
    print(json.dumps(await ray_backend.start_model(config, wait_ready=True)), flush=True)
    sys.stdin.readline()
    print(json.dumps(await ray_backend.stop_model()), flush=True)
    await ray_backend.shutdown()

asyncio.run(main())
"""


class Environment:
    """A fresh virtual environment that holds this project, the example, and what they ask for."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        run(sys.executable, "-m", "venv", str(folder))
        self.pip("install", str(ROOT), str(EXAMPLE))

    def pip(self, *arguments: str) -> None:
        run(str(self._bin / "python"), "-m", "pip", "--quiet", *arguments, timeout=600)

    def engines(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads(run(str(self._bin / "ray-serve-cai"), "engines", "--json").stdout)}

    def serve(self, config: dict[str, Any]) -> subprocess.Popen[str]:
        """The Python API in a process of its own; it prints what start_model returned and stops after a line on stdin."""
        command = [str(self._bin / "python"), "-c", SERVE, json.dumps(config)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("clean") / "venv")


@pytest.mark.full
def test_installed_with_pip_it_is_found_and_served_over_http(environment: Environment) -> None:
    assert environment.engines()["echo"]["installed"] == "0.1.0"
    assert environment.engines()["vllm"]["installed"] is None
    config = {"model": "echo", "engine": "echo", "port": free_port()}
    with environment.serve(config) as served:
        assert served.stdin
        assert served.stdout
        try:
            started = json.loads(served.stdout.readline())
            assert started.items() >= {"started": True, "ready": True, "engine": "echo", "model": "echo", "port": config["port"]}.items(), (
                started
            )
            api = Api(int(started["port"]))
            check_over_http(api)
            assert api.health() == {"status": "healthy", "engine": "echo", "model": "echo"}
            served.stdin.write("\n")
            served.stdin.flush()
            assert json.loads(served.stdout.readline())["status"] == "stopped"
            assert served.wait(60) == 0
        finally:
            served.kill()


@pytest.mark.full
def test_uninstalled_it_is_unknown_and_the_error_says_what_is_there(environment: Environment) -> None:
    """Last in this environment."""
    environment.pip("uninstall", "--yes", "ray-serve-cai-echo")
    assert sorted(environment.engines()) == ["sglang", "vllm"]
    with environment.serve({"model": "echo", "engine": "echo", "port": free_port()}) as served:
        assert served.stdin
        assert served.stdout
        started = json.loads(served.stdout.readline())
        served.stdin.write("\n")
        served.stdin.flush()
        served.wait(60)
    assert started == {
        "started": False,
        "error": "ConfigError",
        "message": "engine is 'echo', which is not registered; Registered: sglang, vllm.",
    }


@pytest.fixture
def derived(tmp_path: Path) -> Iterator[str]:
    """The image that the example's Dockerfile makes."""
    tag = f"ray-serve-cai:test-echo-{free_port()}"
    run(sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--no-compile", "--target", str(tmp_path), str(EXAMPLE))
    run("docker", "build", "--quiet", "--build-arg", f"BASE={IMAGE}", "--tag", tag, "--file", str(EXAMPLE / "Dockerfile"), str(tmp_path))
    yield tag
    run("docker", "image", "rm", "--force", tag, check=False)


@pytest.mark.full
def test_a_derived_image_serves_it(derived: str) -> None:
    port = free_port()
    variables = ("-e", "RSCAI_ENGINE=echo", "-e", "RSCAI_MODEL=echo")
    options = ("--rm", "--detach", "--shm-size", "1g", "--publish", f"127.0.0.1:{port}:8000")
    container = run("docker", "run", *options, *variables, derived).stdout.strip()
    try:
        api = Api(port)
        until("the echo engine ready", api.is_ready, 120)
        check_over_http(api)
        health = api.health()
        assert (health["engine"], health["model"]) == ("echo", "echo")
        rows = {row["name"]: row for row in json.loads(run("docker", "exec", container, "ray-serve-cai", "engines", "--json").stdout)}
        assert rows["echo"]["installed"] == "0.1.0"
        assert rows["vllm"]["installed"]
    except AssertionError:
        print(run("docker", "logs", container, check=False).stderr[-8000:])
        raise
    finally:
        run("docker", "rm", "--force", container, check=False)
