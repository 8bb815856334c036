"""A fake `docker` at the seam of the command line: one project with a head and workers, and a front door that really listens."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ray_serve_cai.node.manifest import Manifest
from ray_serve_cai.upgrade import look, probe, steps

LABEL = "com.docker.compose."
OLD = Manifest(schema=1, build_id="one", protocol=1, ray="2.60.0", python="3.11.2", engine="vllm", engine_version="0.32.0", device="cpu")


class FakeDocker:
    """Answers as Docker would; ``images`` maps names to ids, ``behaviour`` ids to what a head of them does.

    serves, serves alone (no worker joins), dies, hangs, degraded, is refused, has no plan, does not import, is not started.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.images = {"cai:a": "sha256:a", "cai:b": "sha256:b"}
        self.behaviour = {"sha256:a": "serves", "sha256:b": "serves"}
        self.manifests: dict[str, dict[str, Any]] = {"sha256:a": asdict(OLD), "sha256:b": asdict(OLD) | {"build_id": "two"}}
        self.registry: dict[str, str] = {}
        self.model = "demo"
        self.free = 1 << 40
        self.workers = 2
        self.broken = ""
        self.door = "haproxy -db -f /tmp/ray-serve-cai/haproxy.cfg"
        self.draining = 0
        self.calls: list[str] = []
        self.containers: dict[str, dict[str, Any]] = {}
        self.policies: list[str] = []
        self.on: dict[str, Callable[[], None]] = {}
        self.start("cai:a")

    def start(self, image: str) -> None:
        for name in ["head", *(f"worker{number}" for number in range(self.workers))]:
            self.containers[name] = self._container(name, image)

    def _container(self, name: str, image: str) -> dict[str, Any]:
        service = name.rstrip("0123456789")
        env = self.environment(service)
        labels = {f"{LABEL}service": service, f"{LABEL}config-hash": self._hash(service, image), f"{LABEL}project.config_files": "old.yaml"}
        return {
            "Id": name,
            "Image": self.images[image],
            "Config": {"Image": image, "Env": [f"{key}={value}" for key, value in env.items()], "Labels": labels},
            "State": {"Status": "running", "ExitCode": 0},
            "HostConfig": {"NetworkMode": "shop_default", "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}},
            "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(self.port)}]} if name == "head" else {}},
        }

    def environment(self, service: str) -> dict[str, str]:
        return {"RSCAI_ROLE": service, "RSCAI_MODEL": self.model, "RSCAI_DRAIN_S": "7"}

    def _hash(self, service: str, image: str) -> str:
        return f"{service}/{image}/{self.model}"

    @property
    def head_does(self) -> str:
        head = self.containers.get("head")
        return self.behaviour[head["Image"]] if head and head["State"]["Status"] == "running" else "is stopped"

    def joined(self) -> int:
        return 1 if self.head_does == "serves alone" else sum(one["State"]["Status"] == "running" for one in self.containers.values())

    def __call__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, input: str = "", **_: object
    ) -> subprocess.CompletedProcess[str]:
        words = list(command[1:])
        image = (env or {}).get("IMAGE", "")
        while words[0] == "compose" and words[1].startswith("--"):
            del words[1:3]
        line = " ".join(words)
        self.calls.append(f"{line} [{image}]" if image else line)
        for start, act in list(self.on.items()):
            if line.startswith(start):
                act()
        code, out, err = (1, "", self.broken) if self.broken else self._answer(words, image, input)
        return subprocess.CompletedProcess(command, code, out, err)

    def _answer(self, words: list[str], image: str, given: str) -> tuple[int, str, str]:  # noqa: PLR0912  # a branch for each command
        match words:
            case ["compose", "config", "--format", "json"]:
                if " " in image:
                    return 1, "", "invalid reference format"
                services = {name: {"image": image, "environment": self.environment(name)} for name in ("head", "worker")}
                return 0, json.dumps({"name": "shop", "services": services | {"metrics": {"image": "other", "environment": None}}}), ""
            case ["compose", "config", "--hash", "*"]:
                services = json.loads(given)["services"]
                return 0, "".join(f"{name} {self._hash(name, one['image'])}\n" for name, one in services.items()), ""
            case ["compose", "run", *_, "ray-serve-cai", "plan", "--json"]:
                if self.behaviour[self.images[image]] == "has no plan":
                    return 127, "", "exec: ray-serve-cai: not found\n"
                if self.behaviour[self.images[image]] == "is refused":
                    return 78, json.dumps({"models": ["error: the engine has no argument 'x'; did you mean y?"]}), ""
                return 0, json.dumps({"models": ["demo: vllm"]}), ""
            case ["kill", "--signal", "SIGTERM", "head"]:
                self.draining = 3
                return 0, "", ""
            case ["top", *_]:
                self.draining -= 1
                return 0, "tini -- ray-serve-cai node\nhaproxy -f /tmp/haproxy-serve/haproxy.cfg\n" + self.door * (self.draining != 0), ""
            case ["compose", "stop", "head"] | ["kill", *_]:
                for name in words[1:] if words[0] == "kill" else ["head"]:
                    self.containers[name]["State"]["Status"] = "exited"
                return 0, "", ""
            case ["compose", "up", *_]:
                if self.behaviour[self.images[image]] == "is not started":
                    return 1, "", "failed to create task: exec tini: not found"
                self.start(image)
                if self.behaviour[self.images[image]] == "dies":
                    self.containers["head"]["State"] = {"Status": "exited", "ExitCode": 71}
                return 0, "", ""
            case ["ps", *_]:
                return 0, "\n".join(self.containers), ""
            case ["inspect", *ids]:
                return 0, json.dumps([self.containers[one] for one in ids]), ""
            case ["image", "inspect", "--format", what, name]:
                found = self.images.get(name) or (name if name in self.images.values() else None)
                return (0, "1000" if "Size" in what else found, "") if found else (1, "", "No such image")
            case ["run", *_, "--entrypoint", "cat", identity, _]:
                found = self.manifests.get(identity)
                return (0, json.dumps(found), "") if found else (1, "", "cat: no such file")
            case ["run", *_, "--entrypoint", "python3", name, "-c", _]:
                broken = self.behaviour[self.images[name]] == "does not import"
                return (1, "", "Traceback ...\nImportError: no libnuma") if broken else (0, "", "")
            case ["exec", _, "df", *_]:
                return 0, f"Filesystem 1-blocks Used Available Capacity Mounted\noverlay 9 9 {self.free} 9% /\n", ""
            case ["update", policy, _]:
                self.policies.append(policy.removeprefix("--restart="))
                return 0, "", ""
            case ["logs", *_]:
                return 0, "starting\n", "ray-serve-cai: error: port 8000 is in use; take another one.\n"
            case ["tag", identity, name]:
                self.images[name] = identity
                return 0, "", ""
            case ["pull", "--quiet", name]:
                if name in self.registry:
                    self.images[name] = self.registry[name]
                    return 0, name, ""
                return 1, "", "pull access denied"
        raise AssertionError(words)

    def acts(self) -> list[str]:
        """The calls that change the cluster."""
        changing = ("compose stop", "kill", "compose up", "tag", "update")
        return [call for call in self.calls if call.startswith(changing)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeDocker]:
    """The fake in place of the command, and a project in the current directory."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            does = made.head_does
            phase = {"hangs": "loading weights", "degraded": "degraded"}.get(does, "ready")
            code = 200 if does.startswith("serves") else 503
            models = [{"name": "demo"}, {"name": "second"}]
            body = json.dumps({"phase": phase, "detail": "as told", "models": models, "nodes": {"alive": made.joined()}}).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    made = FakeDocker(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(subprocess, "run", made)
    monkeypatch.setattr(steps, "POLL_S", 0.01)
    monkeypatch.setattr(probe, "INTERVAL_S", 0.01)
    for name in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "IMAGE"):
        monkeypatch.delenv(name, raising=False)
    look.contents.cache_clear()
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose/cpu.yaml").touch()
    monkeypatch.chdir(tmp_path)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
