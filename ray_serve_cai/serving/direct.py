"""One application deployed straight to Serve, beside whatever runs there: the effects behind the Python API.

`serving.controller` is the way of a node of ours, declarative and with one writer; this one is for a process that holds a Ray
connection of its own. Every function blocks, and needs ``ray.init`` to have been called.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ray_serve_cai import labels
from ray_serve_cai.engines import report
from ray_serve_cai.engines.base import EngineInfo
from ray_serve_cai.engines.engine_config import EngineConfig
from ray_serve_cai.engines.registry import deployment_factory
from ray_serve_cai.engines.report import last_line
from ray_serve_cai.errors import ConfigError, EngineError, ResourceError, UnavailableError, one_line
from ray_serve_cai.serving import room

POLL_S = 0.25
PROGRESS_S = 30
Given = ParamSpec("Given")
Result = TypeVar("Result")


def _typed(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Ray's and Serve's own exceptions, which have no common base, become one typed line."""

    @wraps(function)
    def typed(*arguments: Given.args, **named: Given.kwargs) -> Result:
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        try:
            return function(*arguments, **named)
        except (RayError, RayServeException, RuntimeError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"Ray Serve: {type(error).__name__}: {one_line(error)}") from error

    return typed


@dataclass(frozen=True)
class DeploymentStatus:
    """One deployment of an application, in Serve's words."""

    name: str
    status: str
    message: str


@dataclass(frozen=True)
class ApplicationStatus:
    """An application, in Serve's words: NOT_STARTED, DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED, DELETING."""

    status: str
    message: str
    deployments: tuple[DeploymentStatus, ...]


@_typed
def nodes() -> list[dict[str, Any]]:
    """Ray's alive nodes."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def has_gpus(alive: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any node offers GPUs. Pure."""
    return any(node["Resources"].get("GPU", 0) > 0 for node in alive)


def engines_by_label(alive: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """Engines that the nodes' labels name, None where no node has labels of ours. Pure."""
    named = {label for node in alive for label in node.get("Labels", {})}
    if not any(label.startswith(labels.OURS) for label in named):
        return None
    return labels.engines(named)


def placed(config: EngineConfig, alive: Sequence[Mapping[str, Any]]) -> EngineConfig:
    """The configuration with its placement, found to fit on some node. Pure.

    Raises:
        ConfigError: no node has the engine.
        ResourceError: the cluster has no room for a replica, or for so many.
    """
    config = config.model_copy(update={"labelled": installed_somewhere(config.info, alive)})
    missing = room.shortfalls([config], [room.node_state(node) for node in alive])
    if missing:
        fix = "num_replicas, tensor_parallel_size and use_cpu: true change what it takes"
        raise ResourceError(f"model {config.name!r}: {missing[config.name].fact}; {fix}.")
    return config


def installed_somewhere(info: EngineInfo, alive: Sequence[Mapping[str, Any]]) -> bool:
    """Whether labels name nodes with the engine; False where no node has such labels, as in a cluster that is not of our images. Pure.

    Raises:
        ConfigError: nodes have labels, and none has the engine.
    """
    there = engines_by_label(alive)
    if there is None or not info.distribution:
        return False
    if info.name not in there:
        known = ", ".join(there) or "none"
        fix = f"use an image that has it, or: {info.install}"
        raise ConfigError(f"engine {info.name!r} is installed on no node; installed: {known}; {fix}.")
    return True


@_typed
def start_serve(host: str, port: int) -> None:
    """Start Serve with its ingress on every node, or find it running at this port.

    Raises:
        ResourceError: the port is taken, or Serve listens at another one.
    """
    from ray import serve
    from ray.serve.context import _get_global_client
    from ray.serve.exceptions import RayServeException

    with contextlib.suppress(RayServeException):
        client = _get_global_client()
        if client is not None:
            if client.http_config.port != port:
                there = client.http_config.port
                raise ResourceError(f"port is {port}, and Serve of this cluster listens at {there}; use port: {there}.")
            return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ResourceError(f"port {port} on {host} cannot be listened on ({error.strerror}); use another port.") from error
    serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})


@_typed
def deploy(application: str, config: EngineConfig, progress: Callable[[str], None]) -> None:
    """Deploy, and return when the application runs; ``progress`` gets each phase that the replica reports.

    Raises:
        RayServeCaiError: the replica's own error, as soon as it reports one; nothing of the application is left then.
    """
    from ray import serve

    report.write(config.name, report.StartReport())
    made = deployment_factory(config.info).create_deployment(config)
    serve.run_many([serve.RunTarget(made, name=application, route_prefix="/")], wait_for_applications_running=False)
    phase, spoke = "", time.monotonic()
    while True:
        said, seen = report.read(config.name), status(application)
        if said.phase != phase or time.monotonic() - spoke > PROGRESS_S:
            phase, spoke = said.phase, time.monotonic()
            progress(phase or "waiting for a replica to be placed")
        error = said.as_error()
        if error is None and seen is not None and seen.status == "DEPLOY_FAILED":
            error = EngineError(f"model {config.name!r} did not start: {last_line(seen.message)[:600]}")
        if error is not None:
            delete(application)
            raise error
        if seen is not None and seen.status == "RUNNING":
            return
        time.sleep(POLL_S)


@_typed
def status(application: str) -> ApplicationStatus | None:
    """Where the application stands, None where Serve does not have it."""
    from ray import serve

    found = serve.status().applications.get(application)
    if found is None:
        return None
    deployments = tuple(DeploymentStatus(name, str(one.status.value), one.message) for name, one in found.deployments.items())
    return ApplicationStatus(str(found.status.value), found.message, deployments)


@_typed
def delete(application: str) -> None:
    """Remove the application and wait until it is gone."""
    from ray import serve

    serve.delete(application)


@_typed
def stop_serve() -> bool:
    """Stop Serve where no application is left; whether it did."""
    from ray import serve

    if serve.status().applications:
        return False
    serve.shutdown()
    return True
