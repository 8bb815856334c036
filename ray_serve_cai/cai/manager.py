"""`CAIClusterManager`: a cluster of applications from Python, in a session of the project or anywhere else. A stable API."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ray_serve_cai import config as serving
from ray_serve_cai.cai import front, settings
from ray_serve_cai.cai.apply import Say
from ray_serve_cai.cai.client import Client
from ray_serve_cai.cai.cluster import Cluster
from ray_serve_cai.cai.config import DIRECTORY, HOME, CaiConfig, CaiFile, parse_section
from ray_serve_cai.errors import UsageError
from ray_serve_cai.node import secret_files

GROUP = "worker"
OURS = "Ray Serve "
"""How the editions of this project's runtimes begin."""


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class CAIClusterManager:
    """Starts, looks at and stops a cluster of Cloudera AI applications.

    All methods raise `ray_serve_cai.errors.RayServeCaiError`, whose message says the fact, the value and the fix.

    Args:
        host: the workspace; None for CML_HOST, or the workspace of this session.
        api_key: an API v2 key; None for CML_API_KEY, or the session's own.
        project_id: None for CDSW_PROJECT_ID, which sessions have.
        name: what the applications' names begin with, and the subdomain at which models answer.
        say: takes lines of progress; standard error by default.
        env: variables in place of this process's, in tests.
        transport: of all requests, in tests.
    """

    def __init__(
        self,
        host: str | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        *,
        name: str = "ray-serve",
        say: Say | None = None,
        env: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._env = secret_files.read(os.environ if env is None else env)
        self._settings = settings.settings({"host": host, "api_key": api_key, "project_id": project_id}, self._env, {})
        self._name = parse_section({"name": name, "runtime": OURS}, "CAIClusterManager").name
        self._say = say or _print
        self._transport = transport

    def start_cluster(  # noqa: PLR0917  # the order of arguments that callers know
        self,
        num_workers: int = 1,
        cpu: float = 4,
        memory: float = 16,
        num_gpus: int = 0,
        head_cpu: float = 4,
        head_memory: float = 16,
        runtime_identifier: str | None = None,
        head_runtime_identifier: str | None = None,
        worker_runtime_identifier: str | None = None,
        wait_ready: bool = True,
        timeout: float = 1800,
        *,
        models: Sequence[Mapping[str, Any]] = ({"source": "demo"},),
        authentication: str = "platform",
        shared_memory_gb: int | None = None,
        accelerator: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Bring up a head and its workers, or bring those that are there to these numbers.

        Args:
            cpu: cores of a worker.
            memory: GB of a worker.
            num_gpus: NVIDIA GPUs of a worker.
            head_cpu: cores of the head.
            head_memory: GB of the head.
            runtime_identifier: the image of both, as the workspace's catalog has it; that of this session by default.
                `head_runtime_identifier` and `worker_runtime_identifier` precede it.
            wait_ready: return when all nodes have joined and the models answer; otherwise when the applications are asked for.
            timeout: seconds to wait.
            models: as under `models` in a configuration file; a small demo model by default.
            authentication: ``platform``, or ``keys``, which needs VLLM_API_KEY.
            shared_memory_gb: of every session of the project, raised if it is less; several ranks on a node need some.
            accelerator: id of the GPU node label that workers go to.
            environment: variables for every node.

        Returns:
            As `get_status`.
        """
        runtime = runtime_identifier or head_runtime_identifier or worker_runtime_identifier or self._own_runtime()
        workers = {"count": num_workers, "cpu": cpu, "memory": memory, "gpus": num_gpus, "runtime": worker_runtime_identifier}
        workers["accelerator"] = accelerator
        section = {
            "name": self._name,
            "runtime": runtime,
            "head": {"cpu": head_cpu, "memory": head_memory, "runtime": head_runtime_identifier},
            "workers": {GROUP: workers},
            "authentication": authentication,
            "shared_memory_gb": shared_memory_gb,
            "environment": dict(environment or {}),
        }
        cai: CaiConfig = parse_section(section, "start_cluster")
        wanted = CaiFile(cai=cai, serving=serving.parse({"models": list(models)}, "start_cluster"))
        with self._cluster() as cluster:
            made = cluster.plan(wanted, self._env)
            self._say(str(made))
            return cluster.up(wanted, made, timeout if wait_ready else None).as_dict()

    def get_status(self) -> dict[str, Any]:
        """What is there: ``name``, ``url``, ``applications`` (each with its ``status``) and ``head``, what the head says, or None."""
        with self._cluster() as cluster:
            told = front.told_at(Path(HOME / DIRECTORY), self._name)
            return cluster.status(self._name, told=told).as_dict()

    def stop_cluster(self, timeout: float = 600) -> int:
        """Delete all applications of the cluster, and return when they are gone: how many there were."""
        with self._cluster() as cluster:
            return cluster.down(self._name, timeout)

    def _own_runtime(self) -> str:
        """The catalog's identifier of the image that this session runs.

        Raises:
            UsageError: it is not to be found.
        """
        own = {name: self._env.get(f"ML_RUNTIME_{name.upper()}", "") for name in ("editor", "edition", "kernel", "full_version")}
        with Client(self._settings, self._transport) as client:
            for runtime in client.runtimes() if own["edition"].startswith(OURS) else ():
                if all(getattr(runtime, name) == value for name, value in own.items()):
                    return runtime.image_identifier
        raise UsageError("no runtime is named; give runtime_identifier the image's address, as the workspace's catalog has it.")

    @contextmanager
    def _cluster(self) -> Iterator[Cluster]:
        with Client(self._settings, self._transport, say=self._say) as client:
            yield Cluster(client, self._settings, self._say, transport=self._transport)
