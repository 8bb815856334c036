"""Real containers for tests: one node with `docker run`, clusters with the product's own compose file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

if TYPE_CHECKING:
    from typing import Self

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "ray-serve-cai:vllm-cpu"
SGLANG = "ray-serve-cai:sglang-cpu"
READY_S = 300
testcontainers_config.ryuk_disabled = True  # no registry may be there to pull it from; every fixture cleans up after itself


def run(*command: str, check: bool = True, timeout: float = 180, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; a failure shows what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=env, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} -> {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def until(what: str, condition: Callable[[], Any], timeout: float, interval: float = 0.5) -> Any:
    """The condition's first true value; a timeout says what was waited for and what was seen last."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            seen: Any = condition()
            if seen:
                return seen
        except (httpx.HTTPError, OSError, AssertionError) as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {timeout} s; last seen: {seen!r}")
        time.sleep(interval)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Api:
    """The front door of a node."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.url = f"http://{host}:{port}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=120)

    def health(self) -> dict[str, Any]:
        return dict(self.get("/health").json())

    def is_ready(self) -> bool:
        return self.get("/ready").status_code == 200

    def ask(self, question: str, model: str = "demo") -> str:
        answer = self.post("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def wait_ready(self, timeout: float = READY_S) -> None:
        until(f"{self.url} ready", self.is_ready, timeout)


class Clients:
    """So many at a time, each in a thread, from ``with`` to its end; what one of them does stands in ``_run``."""

    def __init__(self, clients: int) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        raise NotImplementedError


class Load(Clients):
    """Clients that ask one request after the other, in threads, half of them as streams; keeps what failed, and when each was answered.

    ``questions`` are asked in turn, and an answer that is another one has failed, too.
    """

    def __init__(self, api: Api, clients: int = 1, questions: Mapping[str, str] | None = None) -> None:
        self._api = api
        super().__init__(clients)
        self._questions = list((questions or {}).items())
        self.done = 0
        self.failures: list[str] = []
        self.answered: list[float] = []

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._api.url, timeout=120) as client:
            while not self._stop.is_set():
                try:
                    failed = self._ask(client, number, stream=bool(self.done % 2))
                except httpx.HTTPError as error:
                    failed = repr(error)
                self.done += 1
                if not failed:
                    self.answered.append(time.monotonic())
                else:
                    self.failures.append(f"{time.strftime('%H:%M:%S')} {failed}")
                    self._stop.wait(0.2)  # as clients do, so that what starts meanwhile has the CPUs

    def _ask(self, client: httpx.Client, number: int, *, stream: bool) -> str:
        question, expected = self._questions[(number + self.done) % len(self._questions)] if self._questions else ("a", "")
        body = {"model": "demo", "messages": [{"role": "user", "content": question}], "max_tokens": 64, "temperature": 0, "stream": stream}
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = [line for line in answer.iter_lines() if line]
        if answer.status_code != 200:
            return f"{answer.status_code} {lines}"
        if not stream:
            text = json.loads(lines[0])["choices"][0]["message"]["content"]
        elif lines[-1] != "data: [DONE]":
            return f"cut: {lines[-1]}"
        else:
            chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
            text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        return "" if not expected or text == expected else f"{question!r} -> {text!r}"


class Streams(Clients):
    """Clients that stream long answers, one after the other, in threads.

    ``whole`` are the times at which one ended as it should; ``cut`` are all others, and ``broken`` those among them that had begun.
    """

    def __init__(self, api: Api, clients: int) -> None:
        super().__init__(clients)
        self._url = api.url
        self.whole: list[float] = []
        self.cut: list[str] = []
        self.broken: list[str] = []

    def _run(self, number: int) -> None:
        body = {"model": "demo", "prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": True}
        while not self._stop.is_set():
            lines: list[str] = []
            try:
                with httpx.stream("POST", f"{self._url}/v1/completions", json=body, timeout=60) as answer:
                    began = answer.status_code == 200
                    lines.extend(line for line in answer.iter_lines() if line)
                said = f"{answer.status_code} {lines[-1:]}"
            except httpx.HTTPError as error:
                began, said = bool(lines), repr(error)
            if began and lines[-1:] == ["data: [DONE]"]:
                self.whole.append(time.monotonic())
                continue
            self.cut.append(said)
            if began:
                self.broken.append(said)
            self._stop.wait(0.2)


class Node:
    """One container of an image, started as `docker run` would; ``options`` are docker-py's for a container, ``tmpfs`` paths."""

    def __init__(self, image: str = IMAGE, *, tmpfs: tuple[str, ...] = (), **options: Any) -> None:
        self._container = DockerContainer(image, **options).with_exposed_ports(8000)
        for path in tmpfs:
            self._container.with_tmpfs_mount(path)

    def __enter__(self) -> Node:
        self._container.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.logs()[-8000:])
        self._container.stop(force=True, delete_volume=True)

    @property
    def id(self) -> str:
        return str(self._container.get_wrapped_container().id)

    @property
    def api(self) -> Api:
        return Api(int(self._container.get_exposed_port(8000)))

    def logs(self) -> str:
        return "".join(stream.decode(errors="replace") for stream in self._container.get_logs())

    def exec(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("docker", "exec", self.id, *command, check=check)

    def wait_exit(self, timeout: float) -> int:
        return int(self._container.get_wrapped_container().wait(timeout=timeout)["StatusCode"])


class Cluster:
    """compose/cpu.yaml, and overlays of it, under a project name of its own."""

    def __init__(self, workers: int, *overlays: str, base: str = "compose/cpu.yaml", **variables: str) -> None:
        self.files = [word for file in (base, *overlays) for word in ("-f", file)]
        self.port = free_port()
        self.project = f"rscai-test-{uuid.uuid4().hex[:8]}"
        settings = {"WORKERS": str(workers), "MIN_NODES": str(workers + 1), "PORT": str(self.port), "COMPOSE_PROJECT_NAME": self.project}
        defaults = {"MODEL": "demo", "MODEL_NAME": "", "MODEL_MOUNT": "models", "ENGINE": "", "ENGINE_ARGS": "", "IMAGE": IMAGE}
        self.env = os.environ | defaults | settings | variables

    def __enter__(self) -> Cluster:
        self.compose("up", "--detach", "--no-build")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.logs()[-16000:])
        self.compose("down", "--volumes", "--timeout", "2", check=False)

    @property
    def api(self) -> Api:
        return Api(self.port)

    def logs(self) -> str:
        return self.compose("logs", "--tail", "200", check=False).stdout

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return run("docker", "compose", *self.files, *arguments, check=check, timeout=timeout, env=self.env)

    def ids(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).stdout.split()

    def nodes(self) -> list[dict[str, Any]]:
        """The head's own list of nodes, with how many replicas each runs."""
        script = (
            "import json, pathlib, urllib.request as u;"
            "t = pathlib.Path('/tmp/ray-serve-cai/ray-token').read_text();"
            "q = u.Request('http://127.0.0.1:8002/cluster', headers={'Authorization': 'Bearer ' + t});"
            "print(json.dumps(json.load(u.urlopen(q))['nodes']))"
        )
        return list(json.loads(run("docker", "exec", self.ids("head")[0], "python3", "-c", script).stdout))

    def worker_with_replica(self) -> str:
        """Container id of the worker that runs the model."""
        busy = {node["ip"] for node in self.nodes() if node["alive"] and node["replicas"] and node["role"] == "worker"}
        return next(worker for worker in self.ids("worker") if self.ip(worker) in busy)

    def ip(self, container: str) -> str:
        """A container's address, which is its node's."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return run("docker", "inspect", "--format", template, container).stdout.strip()
