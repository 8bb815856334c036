"""An emulated workspace whose applications are containers of a runtime image, and the command line that is used on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers import run
from tests.fakes.cai.containers import Containers, ProjectFiles
from tests.fakes.cai.platform import KEY, PROJECT, Platform
from tests.fakes.cai.server import DOMAIN, Workspace

RUNTIME = "registry.example.com/ray-serve-cai:vllm-cpu-cai"
IMAGE = "ray-serve-cai:vllm-cpu-cai"
MODEL_KEY = "sk-of-the-models-0123456789"
NODE = {"cpu": 1, "memory": 6}


class Site:
    """A workspace, and a person with its API key.

    Attributes:
        said: all that commands have printed.
    """

    def __init__(self, workspace: Workspace, files: ProjectFiles, nodes: Containers, scratch: Path) -> None:
        self.workspace = workspace
        self.files = files
        self.nodes = nodes
        self.said = ""
        self._scratch = scratch
        variables = {"CML_HOST": f"http://{DOMAIN}", "CML_API_KEY": KEY, "CDSW_PROJECT_ID": PROJECT, "VLLM_API_KEY": MODEL_KEY}
        self.env = {**os.environ, **variables, "HTTP_PROXY": workspace.proxy, "http_proxy": workspace.proxy}

    def config(self, name: str, models: list[dict[str, Any]] | None = None, **cai: Any) -> Path:
        """A file for the commands."""
        section = {"name": name, "runtime": RUNTIME, "authentication": "keys", "head": NODE} | cai
        file = self._scratch / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"cai": section, "models": models or [{"source": "demo"}]}))
        return file

    def command(self, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """One command to its end."""
        line = [sys.executable, "-m", "ray_serve_cai.cli", "cai", *words]
        done = subprocess.run(line, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        self.said += done.stdout + done.stderr
        return done

    def good(self, *words: str, timeout: float = 400) -> str:
        """The output of a command that succeeds."""
        done = self.command(*words, timeout=timeout)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def status(self, file: Path) -> dict[str, Any]:
        return dict(json.loads(self.command("status", "-f", str(file), "--json").stdout))

    def ask(self, name: str, key: str | None = MODEL_KEY, question: str = "What is ray-serve-cai?") -> httpx.Response:
        """A request to a cluster's address, as anybody makes it."""
        body = {"model": "demo", "temperature": 0, "messages": [{"role": "user", "content": question}]}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(proxy=self.workspace.proxy, timeout=120) as client:
            return client.post(f"http://{name}.{DOMAIN}/v1/chat/completions", json=body, headers=headers)

    def application(self, name: str) -> dict[str, Any]:
        with self.workspace.lock:
            return next(one for one in self.workspace.platform.applications.values() if one["name"] == name)

    def restart(self, name: str) -> None:
        """As a person does in the workspace; the pod has another address then."""
        with self.workspace.lock:
            self.workspace.platform.restart_application(self.application(name)["id"], {})

    def logs(self) -> str:
        """What all nodes wrote."""
        with self.workspace.lock:
            return "\n".join(
                f"--- {one['name']}\n{self.nodes.log(id)}"
                for id, one in self.workspace.platform.applications.items()
                if id in self.nodes.ids
            )


@contextmanager
def opened(scratch: Path) -> Iterator[Site]:
    project = scratch / "project"
    project.mkdir()
    files = ProjectFiles(project)
    nodes = Containers(files, DOMAIN, {RUNTIME: IMAGE})
    runtimes = [{"image_identifier": RUNTIME, "editor": "PBJ Workbench", "kernel": "Python 3.11", "status": "ENABLED"}]
    try:
        with Workspace(Platform(nodes=nodes, files=files, runtimes=runtimes)) as workspace:
            yield Site(workspace, files, nodes, scratch)
    finally:
        nodes.close()
        run("chown", "-R", str(os.getuid()), str(project), check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with opened(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def took(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Notes what something took, seconds; ``-s`` shows it."""

    def note(what: str, began: float) -> None:
        seconds = round(time.monotonic() - began, 1)
        record_property(what, seconds)
        print(f"\n{what}: {seconds} s")

    return note
