"""Clusters of machines for tests: compose/head.yaml and compose/worker.yaml, with overlays, each as one machine would run it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.containers import IMAGE, Api, run, until

TOKEN = "0123456789abcdef0123456789abcdef"
DEFAULTS = {"IMAGE": IMAGE, "RSCAI_TOKEN": TOKEN, "SHM_SIZE": "1g", "MODEL": "demo", "MODEL_NAME": "", "MODEL_MOUNT": "models"}
DEFAULTS |= {"ENGINE": "", "ENGINE_ARGS": "", "MIN_NODES": "2"}


@functools.cache
def limits() -> dict[str, str]:
    """Nothing where this machine's Docker may raise limits as the product does; in some virtual machines it may not."""
    wanted = ("--ulimit", "memlock=-1", "--ulimit", "nofile=1048576")
    done = run("docker", "run", "--rm", *wanted, "--entrypoint", "true", IMAGE, check=False)
    return {"MEMLOCK": "65536", "NOFILE": "17000"} if done.returncode else {}


class Machine:
    """A node under a project name of its own; without a ``network`` it is in this machine's own."""

    def __init__(self, file: str, *overlays: str, network: str = "", **variables: str) -> None:
        files = (
            f"compose/{file}.yaml",
            *(f"compose/{name}.yaml" for name in overlays),
            *(("tests/compose/network.yaml",) if network else ()),
        )
        self._files = [word for name in files for word in ("-f", name)]
        project = {"COMPOSE_PROJECT_NAME": f"rscai-test-{uuid.uuid4().hex[:8]}", "TEST_NETWORK": network}
        self._env = os.environ | DEFAULTS | limits() | project | variables

    def __enter__(self) -> Machine:
        try:
            self.compose("up", "--detach", "--no-build")
        except AssertionError:
            self.__exit__(None)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind:
            print(self.logs()[-12000:])
        self.compose("down", "--volumes", "--timeout", "2", check=False)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return run("docker", "compose", *self._files, *arguments, check=check, timeout=timeout, env=self._env)

    @property
    def id(self) -> str:
        return self.compose("ps", "--all", "--quiet", "node").stdout.strip()

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "300", check=False).stdout

    def exec(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run("docker", "exec", self.id, *command, check=check)

    def ip(self, family: str = "IPAddress") -> str:
        """Its address in a Docker network."""
        return run(
            "docker", "inspect", "--format", f"{{{{range .NetworkSettings.Networks}}}}{{{{.{family}}}}}{{{{end}}}}", self.id
        ).stdout.strip()

    def health(self) -> dict[str, Any]:
        return dict(json.loads(self.exec("ray-serve-cai", "health", "--json", check=False).stdout or "{}"))


def joined(worker: Machine) -> None:
    until("the worker has joined", lambda: worker.health().get("ready"), 120)


def refused(worker: Machine, said: str) -> None:
    """It stays up, unhealthy, and says why."""
    until("refused", lambda: worker.health().get("phase") == "refused", 90)
    assert said in worker.health()["detail"]
    assert f"refused: {said}" in worker.logs()


def answers(api: Api, questions: dict[str, str]) -> None:
    api.wait_ready()
    question = next(iter(questions))
    assert api.ask(question) == questions[question]


@contextmanager
def docker_network(*options: str) -> Iterator[str]:
    """A Docker network of its own; its name."""
    name = f"rscai-test-{uuid.uuid4().hex[:8]}"
    run("docker", "network", "create", *options, name)
    try:
        yield name
    finally:
        run("docker", "network", "rm", name)
